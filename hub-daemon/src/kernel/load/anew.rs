//! A data path that begins anew: no connection of before is in its maps.
//!
//! Programs of before go on judging by their own maps until those of now take their places. A start that ends before
//! that leaves a folder, by which the next one knows that what it finds is whole and knows nobody.

use std::fs;
use std::io;
use std::path::Path;

use super::carry::gone_is_well;
use super::shapes::Shape;
use super::{MARK, OLD, STAGE, remove_all};

/// Folder below the pins until programs judge by maps that began anew.
pub(super) const ANEW: &str = "anew";
/// Folder in it if there were connections before.
const LOST: &str = "lost";

/// What starts before this one left to be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Begun {
    /// One began anew and did not come to its end.
    pub(super) is_anew: bool,
    /// Connections were lost by it.
    pub(super) is_lost: bool,
}

/// What was begun and not ended.
pub(super) fn begun(pins: &Path) -> io::Result<Begun> {
    let folder = pins.join(ANEW);
    Ok(Begun { is_anew: folder.try_exists()?, is_lost: folder.join(LOST).try_exists()? })
}

/// Puts the maps of the stage into the places of all others. Links stay until their ports are attached anew: traffic is
/// judged by the old programs meanwhile. Without [`MARK`] nobody takes what is there for whole.
pub(super) fn begin(pins: &Path, shapes: &[Shape], is_lost: bool) -> io::Result<()> {
    let folder = pins.join(ANEW);
    fs::create_dir_all(if is_lost { folder.join(LOST) } else { folder })?;
    remove_all(&pins.join(OLD))?;
    let (mark, others): (Vec<&Shape>, Vec<&Shape>) = shapes.iter().partition(|shape| shape.name == MARK);
    for Shape { name, .. } in mark.iter().chain(&others) {
        fs::remove_file(pins.join(name)).or_else(gone_is_well)?;
    }
    for Shape { name, .. } in others.iter().chain(&mark) {
        fs::rename(pins.join(STAGE).join(name), pins.join(name))?;
    }
    fs::remove_dir(pins.join(OLD))
}

/// Notes that no program judges by maps of before any more.
pub(crate) fn end(pins: &Path) -> io::Result<()> {
    let folder = pins.join(ANEW);
    fs::remove_dir(folder.join(LOST)).or_else(gone_is_well)?;
    fs::remove_dir(folder).or_else(gone_is_well)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::load::Capacities;

    #[test]
    fn what_began_anew_is_known_until_it_ends_wherever_it_is_broken_off() {
        let folder = tempfile::tempdir().unwrap();
        let (pins, shapes) = (folder.path(), Capacities::default().maps());
        let stage = || {
            for place in [pins.join(STAGE), pins.join(OLD)] {
                fs::create_dir_all(place).unwrap();
            }
            for shape in &shapes {
                fs::write(pins.join(STAGE).join(shape.name), "").unwrap();
            }
        };
        let nothing = Begun { is_anew: false, is_lost: false };
        assert_eq!(begun(pins).unwrap(), nothing);
        stage();
        begin(pins, &shapes, false).unwrap();
        assert_eq!(begun(pins).unwrap(), Begun { is_anew: true, is_lost: false });
        end(pins).unwrap();
        assert_eq!(begun(pins).unwrap(), nothing);
        // Broken off where the first map takes its place.
        stage();
        fs::remove_file(pins.join(STAGE).join(MARK)).unwrap();
        begin(pins, &shapes, true).unwrap_err();
        assert!(!pins.join(MARK).exists());
        assert_eq!(begun(pins).unwrap(), Begun { is_anew: true, is_lost: true });
        // The next one loses nothing more, and it stays lost.
        stage();
        begin(pins, &shapes, false).unwrap();
        assert_eq!(begun(pins).unwrap(), Begun { is_anew: true, is_lost: true });
        end(pins).unwrap();
        end(pins).unwrap();
        assert_eq!(begun(pins).unwrap(), nothing);
    }
}

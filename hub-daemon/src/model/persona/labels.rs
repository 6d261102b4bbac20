//! Labels: free text for the operator's own order.

use std::collections::BTreeMap;

use crate::document::read::escape;
use crate::model::problems::Problems;

const LABELS: usize = 32;
const LABEL_BYTES: usize = 256;

/// Checks `labels`.
pub(in crate::model) fn check(problems: &mut Problems, labels: Option<&BTreeMap<String, String>>) {
    let Some(labels) = labels else { return };
    if labels.len() > LABELS {
        problems.add("/labels", format!("{} labels: use at most {LABELS}", labels.len()));
    }
    for (key, value) in labels {
        if key.is_empty() || key.len() > LABEL_BYTES || value.len() > LABEL_BYTES {
            let pointer = format!("/labels/{}", escape(key));
            problems.add(pointer, format!("label: use 1 to {LABEL_BYTES} bytes for key and value"));
        }
    }
}

//! Whether packets are dropped that rules did not mean, much more often than before.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Drops;

/// How long packets are counted.
const WINDOW: Duration = Duration::from_millis(400);
/// So many times what was before is too much.
const TIMES: u64 = 3;
/// Packets a second that are never too much: connections that a switch cuts say something once more.
const FEW: u64 = 50;

/// Packets a second that are dropped now.
pub(super) async fn rate(dropped: &Drops) -> Result<u64, String> {
    let (first, began) = (dropped().await?, Instant::now());
    sleep(WINDOW).await;
    let (more, took) = (dropped().await?.saturating_sub(first), began.elapsed());
    Ok(u64::try_from(u128::from(more) * 1_000 / took.as_millis().max(1)).unwrap_or(u64::MAX))
}

/// Compares with what was before; without it there is nothing to compare.
pub(super) fn judge(rate: u64, before: Option<u64>) -> Result<String, String> {
    match before {
        Some(before) if rate > before.saturating_mul(TIMES).max(FEW) => Err(format!(
            "{rate} packets a second are dropped for want of a connection or of rules, {before} before"
        )),
        Some(before) => Ok(format!("{rate} packets a second, {before} before,")),
        None => Ok(format!("{rate} packets a second")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn three_times_as_many_are_too_many_and_a_few_never_are() {
        assert!(judge(1_000_000, None).is_ok(), "nothing is known of before");
        assert!(judge(50, Some(0)).is_ok() && judge(300, Some(100)).is_ok());
        assert!(judge(51, Some(0)).is_err());
        let why = judge(301, Some(100)).unwrap_err();
        assert_eq!(why, "301 packets a second are dropped for want of a connection or of rules, 100 before");
        assert!(judge(u64::MAX, Some(u64::MAX)).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn packets_of_the_window_are_counted_and_none_before() {
        let dropped = Arc::new(AtomicU64::new(7_000));
        let count: Box<Drops> = Box::new(move || {
            let now = dropped.fetch_add(40, Ordering::Relaxed);
            Box::pin(async move { Ok(now) })
        });
        assert_eq!(rate(&*count).await, Ok(100));
        let gone: Box<Drops> = Box::new(|| Box::pin(async { Err("the data path is gone".to_owned()) }));
        assert_eq!(rate(&*gone).await, Err("the data path is gone".to_owned()));
    }
}

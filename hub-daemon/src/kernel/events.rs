//! stub
use std::path::PathBuf; use std::sync::Arc; use tokio::sync::{watch, broadcast};
pub async fn follow(_pins: PathBuf, _s: watch::Receiver<Arc<crate::view::Snapshot>>, _e: broadcast::Sender<crate::datapath_view::EventView>) {}

//! A core at its desk: what the control plane asks for is done between batches.

use std::rc::Rc;
use std::time::Duration;

use glommio::io::BufferedFile;
use glommio::timer::Timer;

use super::worker::Worker;
use crate::control::desk::{Inbox, Request};
use crate::sys::adopt::adopt;

/// How often the queue is looked at when the bell cannot be heard.
const DEAF_PAUSE: Duration = Duration::from_secs(1);

/// Does what is asked of `worker`, for ever.
pub(super) async fn attend(worker: &Rc<Worker>, inbox: Inbox) {
    let bell: BufferedFile = adopt(inbox.bell);
    loop {
        if bell.read_at(0, size_of::<u64>()).await.is_err() {
            Timer::new(DEAF_PAUSE).await;
        }
        while let Ok(request) = inbox.queue.try_recv() {
            carry_out(worker, request);
            glommio::yield_if_needed().await;
        }
    }
}

/// Whoever does not wait any more for an answer gets none.
fn carry_out(worker: &Rc<Worker>, request: Request) {
    match request {
        Request::TakeUp(done) => {
            worker.take_up_policy();
            let _ = done.send(());
        }
    }
}

//! What the worker and the routes share: the queue, the sockets, the disk, and the switches between them.
//!
//! The real server guards its queue with one lock and feeds all sockets from one loop; so does this.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::catalog::Catalog;
use super::disk::Disk;
use super::fault::{FaultKind, Faults};
use super::log::{LogEvent, RunLog};
use super::queue::{Item, Queue};
use super::sockets::{Frame, Sockets, event};
use super::{Options, pythonic};

#[derive(Debug)]
pub(super) struct Machine {
    pub(super) options: Options,
    pub(super) addr: SocketAddr,
    pub(super) catalog: Catalog,
    pub(super) disk: Disk,
    pub(super) log: RunLog,
    pub(super) faults: Faults,
    /// Cancelled when the process would be gone.
    pub(super) power: CancellationToken,
    crashed: AtomicBool,
    hall: Mutex<Hall>,
    /// The worker has something to look at.
    pub(super) wake: Notify,
    interrupt: AtomicBool,
    interrupted: Notify,
    /// Video memory that models hold, in MiB.
    held_mib: AtomicU64,
}

/// What one lock guards.
#[derive(Debug, Default)]
struct Hall {
    queue: Queue,
    sockets: Sockets,
    /// The client of the prompt that runs, or ran last.
    client_id: Option<String>,
    executing: Option<String>,
}

impl Hall {
    fn announce_queue(&mut self) {
        let status = json!({"status": {"exec_info": {"queue_remaining": self.queue.remaining()}}});
        self.sockets.send(None, &event("status", &status));
    }
}

impl Machine {
    pub(super) fn new(options: Options, addr: SocketAddr, disk: Disk, log: RunLog) -> Self {
        let catalog = Catalog::new(&options.without, &options.with);
        let faults = Faults::new(options.faults.clone());
        Self {
            options,
            addr,
            catalog,
            disk,
            log,
            faults,
            power: CancellationToken::new(),
            crashed: AtomicBool::new(false),
            hall: Mutex::default(),
            wake: Notify::new(),
            interrupt: AtomicBool::new(false),
            interrupted: Notify::new(),
            held_mib: AtomicU64::new(0),
        }
    }

    fn hall(&self) -> std::sync::MutexGuard<'_, Hall> {
        self.hall.lock().expect("no holder of this lock panics")
    }

    pub(super) fn has_crashed(&self) -> bool {
        self.crashed.load(Ordering::Acquire)
    }

    pub(super) fn crash(&self) {
        self.crashed.store(true, Ordering::Release);
        self.power.cancel();
    }

    /// Whether this fault strikes now; noted in the log if so.
    pub(super) fn strikes(&self, kind: FaultKind, step: Option<u32>) -> bool {
        let strikes = self.faults.strikes(kind, step);
        if strikes {
            self.log.write(None, None, LogEvent::Struck { fault: kind.to_string() });
        }
        strikes
    }

    pub(super) fn queue<T>(&self, look: impl FnOnce(&mut Queue) -> T) -> T {
        look(&mut self.hall().queue)
    }

    /// Changes the queue and tells every socket its new length.
    pub(super) fn change_queue<T>(&self, change: impl FnOnce(&mut Queue) -> T) -> T {
        let mut hall = self.hall();
        let answer = change(&mut hall.queue);
        hall.announce_queue();
        drop(hall);
        self.wake.notify_one();
        answer
    }

    pub(super) fn sockets<T>(&self, look: impl FnOnce(&mut Sockets) -> T) -> T {
        look(&mut self.hall().sockets)
    }

    /// Opens a socket: its first frame is the status with its id, and where its prompt runs, the node.
    pub(super) fn open_socket(&self, sid: &str) -> tokio::sync::mpsc::Receiver<Frame> {
        let mut hall = self.hall();
        let frames = hall.sockets.open(sid);
        let remaining = hall.queue.remaining();
        let status = json!({"status": {"exec_info": {"queue_remaining": remaining}}, "sid": sid});
        hall.sockets.send(Some(sid), &event("status", &status));
        if hall.client_id.as_deref() == Some(sid)
            && let Some(node) = hall.executing.clone()
        {
            hall.sockets.send(Some(sid), &event("executing", &json!({"node": node})));
        }
        frames
    }

    pub(super) fn take(&self) -> Option<Item> {
        let mut hall = self.hall();
        let item = hall.queue.take()?;
        hall.client_id = item.client_id().map(str::to_owned);
        hall.announce_queue();
        drop(hall);
        self.interrupt.store(false, Ordering::Release);
        Some(item)
    }

    /// To the client of the running prompt; to everyone where it has none.
    pub(super) fn tell(&self, frame: &Frame) {
        let mut hall = self.hall();
        let sid = hall.client_id.clone();
        hall.sockets.send(sid.as_deref(), frame);
    }

    pub(super) fn set_executing(&self, node: Option<&str>) {
        self.hall().executing = node.map(str::to_owned);
    }

    pub(super) fn interrupt(&self) {
        self.interrupt.store(true, Ordering::Release);
        self.interrupted.notify_waiters();
    }

    pub(super) fn is_interrupted(&self) -> bool {
        self.interrupt.load(Ordering::Acquire)
    }

    pub(super) async fn until_interrupted(&self) {
        loop {
            let notified = self.interrupted.notified();
            if self.is_interrupted() {
                return;
            }
            notified.await;
        }
    }

    /// So many models hold video memory from here on.
    pub(super) fn hold(&self, models: usize) {
        let models = u64::try_from(models).unwrap_or(u64::MAX);
        self.held_mib.store(models.saturating_mul(self.options.model_mib), Ordering::Release);
    }

    /// `GET /system_stats`.
    pub(super) fn system_stats(&self) -> Value {
        let mut argv = vec!["main.py".to_owned(), "--port".to_owned(), self.addr.port().to_string()];
        if !self.faults.strikes(FaultKind::NoFolderPaths, None) {
            argv.extend(["--base-directory".to_owned(), self.disk.base().display().to_string()]);
        }
        let (ram, vram) = (64_u64 << 30, self.options.vram_mib << 20);
        // The desktop has its part, PyTorch a workspace, and half of a workspace is idle.
        let (desktop, workspace) = (vram / 16, vram / 128);
        let held = (workspace + (self.held_mib.load(Ordering::Acquire) << 20)).min(vram - desktop);
        let idle = workspace / 2;
        json!({
            "system": {
                "os": "posix", "ram_total": ram, "ram_free": ram - (8 << 30), "comfyui_version": "0.3.64",
                "required_frontend_version": "1.27.10", "installed_templates_version": "0.1.95",
                "required_templates_version": "0.1.95", "python_version": pythonic::VERSION, "pytorch_version": "2.8.0+cu128",
                "embedded_python": false, "argv": argv,
            },
            "devices": [{
                "name": format!("cuda:0 {} : cudaMallocAsync", self.options.gpu), "type": "cuda", "index": 0,
                "vram_total": vram, "vram_free": vram - desktop - held + idle, "torch_vram_total": held, "torch_vram_free": idle,
            }],
        })
    }
}

//! A worker: one thread, one runtime, its own pools and its own randomness.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};
use tokio::sync::mpsc;

use crate::upstream::pool::Pools;

/// What a worker is told.
pub enum Command {
    /// Run this on the worker.
    Run(Box<dyn FnOnce(Rc<Worker>) + Send>),
}

/// A worker's own things.
pub struct Worker {
    /// Its number.
    pub index: usize,
    /// Its connections to upstreams.
    pub pools: Pools,
    random: RefCell<SmallRng>,
    date: Cell<u64>,
    date_text: RefCell<String>,
    connection: Cell<u64>,
}

/// Sends work to a worker.
#[derive(Clone)]
pub struct Handle(mpsc::UnboundedSender<Command>);

impl Handle {
    /// Runs this on the worker.
    pub fn run(&self, work: impl FnOnce(Rc<Worker>) + Send + 'static) {
        // A worker that is gone has nothing left to do.
        let _ = self.0.send(Command::Run(Box::new(work)));
    }
}

/// Starts a worker thread. It ends when all handles are dropped.
///
/// # Errors
/// When the thread or its runtime cannot be made.
pub fn start(index: usize) -> std::io::Result<(Handle, std::thread::JoinHandle<()>)> {
    let (send, mut receive) = mpsc::unbounded_channel();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let thread = std::thread::Builder::new()
        .name(format!("worker-{index}"))
        .spawn(move || {
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, async move {
                let worker = Rc::new(Worker::new(index));
                let sweeper = worker.clone();
                tokio::task::spawn_local(async move {
                    loop {
                        let pause = sweeper.pools.sweep(Instant::now());
                        tokio::time::sleep(pause).await;
                    }
                });
                while let Some(Command::Run(work)) = receive.recv().await {
                    work(worker.clone());
                }
            });
        })?;
    Ok((Handle(send), thread))
}

impl Worker {
    fn new(index: usize) -> Self {
        Self {
            index,
            pools: Pools::default(),
            random: RefCell::new(SmallRng::from_os_rng()),
            date: Cell::new(0),
            date_text: RefCell::default(),
            connection: Cell::new(index as u64),
        }
    }

    /// A random number.
    pub fn random(&self) -> u64 {
        self.random.borrow_mut().next_u64()
    }

    /// A number for a new connection, unique in this process.
    pub fn next_connection(&self) -> u64 {
        let next = self.connection.get() + 1024;
        self.connection.set(next);
        next
    }

    /// The `date` header of now, made once a second.
    pub fn date(&self) -> std::cell::Ref<'_, String> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        if self.date.get() != now {
            let text = crate::http::date::imf_fixdate(now);
            self.date.set(now);
            *self.date_text.borrow_mut() = text;
        }
        self.date_text.borrow()
    }

    /// A fresh UUID.
    pub fn uuid(&self) -> String {
        let mut random = self.random.borrow_mut();
        let mut bytes = [0u8; 16];
        random.fill_bytes(&mut bytes);
        uuid::Builder::from_random_bytes(bytes)
            .into_uuid()
            .hyphenated()
            .to_string()
    }
}

//! Making of many tasks, by several clients at a time.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use anyhow::bail;
use serde_json::{Value, json};

use super::connection::Access;

/// Clients that make tasks at a time.
pub(super) const CLIENTS: u32 = 16;

/// Makes so many tasks with these timers. Their names begin so.
pub(super) fn make(access: &Access, tasks: u32, names: &str, timers: &Value) -> anyhow::Result<()> {
    let next = AtomicU32::new(0);
    let some = || -> anyhow::Result<()> {
        let mut connection = access.connect()?;
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= tasks {
                return Ok(());
            }
            let task = json!({
                "name": format!("{names}-{number:05}"),
                "step": { "type": "EncodedTask", "taskContent": "version: v1.1.0\nsteps:\n  - cmd: busybox true\n" },
                "timers": timers,
            });
            connection.ask("POST", "/api/v1/tasks", Some(&task))?;
        }
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(some)).collect();
        clients.into_iter().try_for_each(|client| match client.join() {
            Ok(made) => made,
            Err(_) => bail!("a client panicked"),
        })
    })
}

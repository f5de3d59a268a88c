//! The signals of the system, as what they mean.

use crate::fault::Fault;

/// The signals that a server or an agent heeds.
pub(crate) struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    hang_up: tokio::signal::unix::Signal,
    #[cfg(windows)]
    interrupt: tokio::signal::windows::CtrlC,
}

impl Signals {
    /// Listens from now on.
    pub(crate) fn listen() -> Result<Self, Fault> {
        let fault = |error: std::io::Error| Fault::machinery(format!("signals can't be listened for: {error}"));
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            Ok(Self {
                interrupt: signal(SignalKind::interrupt()).map_err(fault)?,
                terminate: signal(SignalKind::terminate()).map_err(fault)?,
                hang_up: signal(SignalKind::hangup()).map_err(fault)?,
            })
        }
        #[cfg(windows)]
        {
            Ok(Self { interrupt: tokio::signal::windows::ctrl_c().map_err(fault)? })
        }
    }

    /// Waits for the next signal to stop; gives its name.
    pub(crate) async fn next(&mut self) -> &'static str {
        self.next_but_reload(|| ()).await
    }

    /// Waits for the next signal to stop, the end of the terminal included; gives its name.
    pub(crate) async fn next_or_hang_up(&mut self) -> &'static str {
        #[cfg(unix)]
        {
            tokio::select! {
                _ = self.interrupt.recv() => "interrupted",
                _ = self.terminate.recv() => "told to end",
                _ = self.hang_up.recv() => "hung up",
            }
        }
        #[cfg(windows)]
        {
            self.next().await
        }
    }

    /// The same as [`Self::next`]; a signal to read files again is answered by `reload`.
    pub(crate) async fn next_but_reload(&mut self, reload: impl Fn()) -> &'static str {
        #[cfg(unix)]
        {
            loop {
                tokio::select! {
                    _ = self.interrupt.recv() => return "interrupted",
                    _ = self.terminate.recv() => return "told to end",
                    _ = self.hang_up.recv() => reload(),
                }
            }
        }
        #[cfg(windows)]
        {
            let _ = reload;
            self.interrupt.recv().await;
            "interrupted"
        }
    }
}

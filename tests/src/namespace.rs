//! Network namespaces: each is a machine of its own as far as the network goes. They need root.

use std::ffi::OsStr;
use std::os::fd::AsFd as _;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::context::unique;
use crate::outcome::{quiet, run_to_end};

/// How long `ip` may take.
const LIMIT: Duration = Duration::from_secs(20);

/// A network namespace with a loopback device that is up. Clones are the same one; it is gone with the last of them.
#[derive(Clone)]
pub struct Namespace(Arc<Inner>);

struct Inner {
    name: String,
}

/// A cable between two namespaces. It goes with either of them.
pub struct Cable {
    /// The address of the first end.
    pub first: String,
    /// The address of the second end.
    pub second: String,
    device: String,
    namespaces: (Namespace, Namespace),
}

impl Namespace {
    /// Makes one.
    #[track_caller]
    pub fn new() -> Self {
        let name = format!("cooper-{}", &unique()[..12]);
        ip(&["netns", "add", &name]);
        let namespace = Self(Arc::new(Inner { name }));
        namespace.ip(&["link", "set", "lo", "up"]);
        namespace
    }

    /// A program that sees this network, and is otherwise where its parent is.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        // `ip netns exec` would mount a new /sys, without the control groups that an engine needs.
        let mut command = quiet("nsenter");
        command.arg(format!("--net={}", self.path())).arg("--").arg(program);
        command
    }

    /// Does something in a thread that sees this network.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let path = self.path();
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let file = std::fs::File::open(path).expect("open a network namespace");
                let kind = rustix::thread::LinkNameSpaceType::Network;
                rustix::thread::move_into_link_name_space(file.as_fd(), Some(kind)).expect("enter a network namespace");
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Lays a cable to another namespace, with an address at each end.
    #[track_caller]
    pub fn connect(&self, other: &Self) -> Cable {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // Names and addresses are each namespace's own affair: nobody else meets them.
        let device = format!("cable{number}");
        let address = |end: u32| format!("10.77.{number}.{end}");
        let (first, second) = (address(1), address(2));
        let (here, there) = (&self.0.name, &other.0.name);
        ip(&["link", "add", &device, "netns", here, "type", "veth", "peer", "name", &device, "netns", there]);
        for (namespace, address) in [(self, &first), (other, &second)] {
            namespace.ip(&["address", "add", &format!("{address}/24"), "dev", &device]);
            namespace.ip(&["link", "set", &device, "up"]);
        }
        Cable { first, second, device, namespaces: (self.clone(), other.clone()) }
    }

    /// Runs `ip` inside.
    #[track_caller]
    pub fn ip(&self, arguments: &[&str]) {
        ip(&[&["-netns", &self.0.name], arguments].concat());
    }

    fn path(&self) -> String {
        format!("/run/netns/{}", self.0.name)
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let _ = quiet("ip").args(["netns", "delete", &self.name]).output();
    }
}

impl Cable {
    /// Cuts the cable: what is sent is lost, and nobody is told.
    #[track_caller]
    pub fn cut(&self) {
        self.cut_into(&self.namespaces.0);
        self.cut_into(&self.namespaces.1);
    }

    /// Loses what is sent into one of the two namespaces; what that one sends still arrives.
    #[track_caller]
    pub fn cut_into(&self, namespace: &Namespace) {
        run(namespace, "iptables", &["--insert", "INPUT", "--in-interface", &self.device, "--jump", "DROP"]);
    }

    /// Lets through only so much of each direction, such as `1mbit`.
    #[track_caller]
    pub fn slow(&self, rate: &str) {
        for namespace in [&self.namespaces.0, &self.namespaces.1] {
            let limits = ["root", "tbf", "rate", rate, "burst", "32kb", "latency", "400ms"];
            run(namespace, "tc", &[&["qdisc", "replace", "dev", &self.device], &limits[..]].concat());
        }
    }

    /// Makes the cable as good as new.
    #[track_caller]
    pub fn mend(&self) {
        for namespace in [&self.namespaces.0, &self.namespaces.1] {
            run(namespace, "iptables", &["--flush", "INPUT"]);
            // A cable that was never slow has nothing to delete.
            let arguments = ["qdisc", "delete", "dev", &self.device, "root"];
            run_to_end(namespace.command("tc").args(arguments), LIMIT);
        }
    }
}

#[track_caller]
fn ip(arguments: &[&str]) {
    run_to_end(quiet("ip").args(arguments), LIMIT).ok();
}

#[track_caller]
fn run(namespace: &Namespace, program: &str, arguments: &[&str]) {
    run_to_end(namespace.command(program).args(arguments), LIMIT).ok();
}

//! Emulated platforms: what is registered with the kernel is offered, and builds.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use cooper_e2e::{Context, Namespace, PrivateEngine, ServerOptions, TestServer, run_to_end, unique, wait_until};

/// How long a mount may take.
const MOUNT: Duration = Duration::from_secs(20);
/// How long a run may take from the moment that an agent can take it.
const BUILT: Duration = Duration::from_secs(120);
/// Where the kernel is told of foreign programs.
const REGISTRY: &str = "/proc/sys/fs/binfmt_misc";
/// Static, so that it works inside any image.
const EMULATOR: &str = "/usr/bin/qemu-aarch64-static";

/// The emulation of linux/arm64, for as long as this lives, if the machine does not have it anyway.
struct Emulation {
    is_ours: bool,
    mounted: bool,
}

impl Emulation {
    const NAME: &str = "cooper-test-aarch64";

    fn register() -> Self {
        assert!(Path::new(EMULATOR).exists(), "`cargo xtask test` installs {EMULATOR}");
        let registry = Path::new(REGISTRY);
        let mounted = !registry.join("register").exists();
        if mounted {
            let mut mount = Command::new("mount");
            run_to_end(mount.args(["-t", "binfmt_misc", "binfmt_misc", REGISTRY]), MOUNT).ok();
        }
        let is_ours = !registry.join("qemu-aarch64").exists();
        if is_ours {
            // Programs for this processor by their first bytes; F opens the emulator now, not inside the container.
            let magic = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00";
            let mask = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff";
            let line = format!(":{}:M::{magic}:{mask}:{EMULATOR}:F", Self::NAME);
            std::fs::write(registry.join("register"), line).unwrap();
        }
        Self { is_ours, mounted }
    }
}

impl Drop for Emulation {
    fn drop(&mut self) {
        if self.is_ours {
            let _ = std::fs::write(Path::new(REGISTRY).join(Self::NAME), "-1");
        }
        if self.mounted {
            let _ = Command::new("umount").arg("--lazy").arg(REGISTRY).status();
        }
    }
}

/// The smallest program for linux/arm64 that says something: no such program has to be found for the test.
fn arm64_program(says: &str) -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    let code = [
        0xd280_0020,                            // mov x0, 1
        0x1000_00e1,                            // adr x1, the text behind the code
        0xd280_0002 | (says.len() as u32) << 5, // mov x2, its length
        0xd280_0808,                            // mov x8, 64 (write)
        0xd400_0001,                            // svc 0
        0xd280_0000,                            // mov x0, 0
        0xd280_0ba8,                            // mov x8, 93 (exit)
        0xd400_0001_u32,                        // svc 0
    ];
    let size = HEADERS + 4 * code.len() as u64 + says.len() as u64;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    // An executable for AArch64, and where its parts are.
    file.extend([2_u16, 183].iter().flat_map(|half| half.to_le_bytes()));
    file.extend(1_u32.to_le_bytes());
    file.extend([BASE + HEADERS, 64, 0].iter().flat_map(|word| word.to_le_bytes()));
    file.extend(0_u32.to_le_bytes());
    file.extend([64_u16, 56, 1, 64, 0, 0].iter().flat_map(|half| half.to_le_bytes()));
    // One segment, which is the whole file, to be read and executed.
    file.extend([1_u32, 5].iter().flat_map(|half| half.to_le_bytes()));
    file.extend([0, BASE, BASE, size, size, 0x1000].iter().flat_map(|word: &u64| word.to_le_bytes()));
    file.extend(code.iter().flat_map(|word| word.to_le_bytes()));
    file.extend(says.as_bytes());
    file
}

#[test]
fn a_platform_that_becomes_emulated_is_offered_and_builds() {
    // A machine that emulates already shows the second half only.
    let namespace = Namespace::new();
    let mut engine = PrivateEngine::start(&namespace);
    let arguments = vec!["--engine".to_owned(), engine.socket().display().to_string()];
    let server = TestServer::with(ServerOptions { arguments, namespace: Some(namespace), ..Default::default() });
    let word = unique();
    let context = Context::new(&format!("FROM scratch\nCOPY hello /hello\nLABEL word={word}\nRUN [\"/hello\"]\n"))
        .file("hello", arm64_program("arm64-speaks\n"));
    std::fs::set_permissions(context.join("hello"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let folder = context.display();
    let queued = server.cooper(&["build", "--no-wait", "--platform", "linux/arm64", "-t", "arm:1", &folder]).expect(0);
    let id = queued.stdout.trim().to_owned();
    let run = || server.run(&id);
    if !Path::new(REGISTRY).join("qemu-aarch64").exists() {
        wait_until("the run says what it waits for", BUILT, || {
            run()["pendingReason"].as_str().is_some_and(|reason| reason.contains("linux/arm64"))
        });
    }
    let _emulation = Emulation::register();
    // The agent asks once a minute, and when an engine is back: that is sooner.
    engine.stop();
    engine.launch();
    wait_until("the run ends", BUILT, || run()["finishTime"].is_string());
    let log = server.cooper(&["logs", &id]).ok().stdout;
    assert_eq!(run()["status"], "Succeeded", "{log}");
    assert!(log.contains("arm64-speaks"), "{log}");
    let image = server.registry("/v2/arm/manifests/1");
    let config = serde_json::from_str::<serde_json::Value>(&image.body).unwrap()["config"]["digest"].clone();
    let config = server.registry(&format!("/v2/arm/blobs/{}", config.as_str().unwrap()));
    assert_eq!(serde_json::from_str::<serde_json::Value>(&config.body).unwrap()["architecture"], "arm64");
}

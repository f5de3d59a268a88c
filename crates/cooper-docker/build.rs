//! Compiles the helper program for the image that the engine gets: static, small, with the standard library alone.

use std::path::PathBuf;
use std::process::Command;

#[expect(clippy::disallowed_methods, reason = "variables are how cargo tells a build script what to do")]
fn variable(name: &str) -> Option<String> {
    println!("cargo::rerun-if-env-changed={name}");
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn main() -> Result<(), String> {
    let required = |name| variable(name).ok_or_else(|| format!("cargo does not set {name}"));
    let source = PathBuf::from(required("CARGO_MANIFEST_DIR")?).join("src/helper/program.rs");
    let helper = PathBuf::from(required("OUT_DIR")?).join("helper");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/helper");
    if required("CARGO_CFG_TARGET_OS")? != "linux" {
        // An empty program: the adapter says then what can't be done.
        return std::fs::write(&helper, []).map_err(|error| format!("{}: {error}", helper.display()));
    }
    let mut rustc = Command::new(required("RUSTC")?);
    rustc
        .arg("--edition=2024")
        .args(["--crate-name", "cooper_helper", "--crate-type", "bin"])
        .args(["--target", &required("TARGET")?])
        .args(["-C", "target-feature=+crt-static", "-C", "panic=abort", "-C", "opt-level=s"])
        .args(["-C", "lto=fat", "-C", "codegen-units=1", "-C", "strip=symbols"])
        .arg("-o")
        .arg(&helper)
        .arg(&source);
    if let Some(linker) = variable("RUSTC_LINKER") {
        rustc.args(["-C", &format!("linker={linker}")]);
    }
    let output = rustc.output().map_err(|error| format!("{rustc:?}: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("the helper program does not link: are the C library's static files there?\n{said}"));
    }
    Ok(())
}

//! Compiles the agents' protocol without an installed protoc.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=../../schemas/agent.proto");
    let descriptors = protox::compile(["agent.proto"], ["../../schemas"])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}

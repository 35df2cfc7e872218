//! Compiles `proto/` into the module of the generated types and the descriptor set that reflection serves.

use std::{env, error::Error, fs, path::PathBuf};

use protox::prost::Message as _;

const ROOT: &str = "../../proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed={ROOT}");

    let mut files = Vec::new();
    for entry in fs::read_dir(PathBuf::from(ROOT).join("longtake/v1"))? {
        let name = entry?.file_name().into_string().map_err(|name| format!("{name:?} is not UTF-8"))?;
        if name.ends_with(".proto") {
            files.push(format!("longtake/v1/{name}"));
        }
    }
    files.sort();

    let mut compiler = protox::Compiler::new([ROOT])?;
    // Comments become rustdoc; reflection needs the imported well-known types too.
    compiler.include_source_info(true).include_imports(true).open_files(files)?;
    let descriptors = compiler.file_descriptor_set();

    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    fs::write(out.join("longtake_descriptor.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().build_client(true).build_server(true).compile_fds(descriptors)?;
    Ok(())
}

//! The migrations are part of the binary: a new file is a new build.

fn main() {
    println!("cargo:rerun-if-changed=../../migrations");
}

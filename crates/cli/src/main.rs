//! The program `longtake`: see the library for how it is put together.

fn main() -> std::process::ExitCode {
    longtake::main()
}

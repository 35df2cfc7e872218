//! The program `longtake`: see the library for how it is put together.

/// A server takes and gives back some fifty small pieces of memory for a step, on every thread: the system's own allocator
/// spends a fifth of the server's time on that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    longtake::main()
}

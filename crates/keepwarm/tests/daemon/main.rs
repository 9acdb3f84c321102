//! The daemon as a process: started, asked by programs that others wrote, stopped.

mod interop;
mod life;
mod support;

//! The io_uring frontends: a [`wardline_core::Relay`] on Linux's rings.
//!
//! - [`ring`]: our own loop, one per shard, on the `io-uring` crate.
//! - [`compat`]: a data path on `tokio-uring` alone, for older kernels and as the honest baseline.
//! - [`control`]: the operator's requests, on a thread beside either engine.
//! - [`probe`]: what this kernel, container and seccomp profile allow.
//!
//! All unsafe code stands in `sys`.
#![cfg(all(target_os = "linux", not(wardline_portable)))]
#![deny(unsafe_code, unsafe_op_in_unsafe_fn)]

pub mod compat;
pub mod control;
pub mod probe;
pub mod ring;
mod sys;

pub use sys::RawPool;

//! Records, frames and control values of the native dialect: what is handed out is what was sent,
//! in its order, and what is taken has one encoding.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    wardline_sim::run_native_records(bytes);
});

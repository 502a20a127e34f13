//! The machine below: start, stack, two system calls, and the memory functions that compiled code
//! calls. All unsafe code of this program but one line is here.

use core::arch::{asm, naked_asm};
use core::fmt::Write;
use core::panic::PanicInfo;

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
compile_error!("this program makes system calls by itself: Linux on x86_64 only");

/// Bytes of stack. What was used of them is printed at the end; see [`stack_used`].
pub const STACK_BYTES: usize = 12 << 10;

/// What an untouched byte of the stack holds.
const PAINT: u8 = 0xA5;

#[repr(C, align(16))]
struct Stack([u8; STACK_BYTES]);

static mut STACK: Stack = Stack([0; STACK_BYTES]);

/// Where the kernel begins: leaves the stack that it gave us and takes our own, so that all memory
/// that is ever used is in the program's own sections.
#[unsafe(naked)]
#[unsafe(no_mangle)]
extern "C" fn _start() -> ! {
    naked_asm!(
        "lea rdi, [rip + {stack}]",
        "mov rdx, rdi",
        "mov ecx, {bytes}",
        "mov al, {paint}",
        "rep stosb",
        "lea rsp, [rdx + {bytes}]",
        "xor ebp, ebp",
        "call {main}",
        "ud2",
        stack = sym STACK,
        bytes = const STACK_BYTES,
        paint = const PAINT,
        main = sym crate::main,
    )
}

/// The most bytes of the stack that were in use at any time.
pub fn stack_used() -> usize {
    let start = (&raw const STACK).cast::<u8>();
    let mut untouched = 0;
    // SAFETY: only bytes of the stack's own static are read, one by one and as they are in
    // memory; nothing lives in those that still hold the paint.
    while untouched < STACK_BYTES && unsafe { start.add(untouched).read_volatile() } == PAINT {
        untouched += 1;
    }
    STACK_BYTES - untouched
}

/// Ends the program.
pub fn exit(code: i32) -> ! {
    // SAFETY: exit_group takes a number and does not return.
    unsafe {
        asm!("syscall", in("rax") 231, in("rdi") code, options(noreturn, nostack));
    }
}

/// Writes all of `text` to standard output, as far as that can be done.
pub fn print(text: &str) {
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        let written: isize;
        // SAFETY: write reads `rest.len()` bytes from `rest` and clobbers rcx and r11.
        unsafe {
            asm!(
                "syscall",
                inlateout("rax") 1_isize => written,
                in("rdi") 1,
                in("rsi") rest.as_ptr(),
                in("rdx") rest.len(),
                lateout("rcx") _,
                lateout("r11") _,
                options(nostack),
            );
        }
        match usize::try_from(written) {
            Ok(written) if written > 0 => rest = rest.get(written..).unwrap_or_default(),
            Ok(_) | Err(_) => return,
        }
    }
}

/// Prints a number.
pub fn print_number(number: usize) {
    let mut digits = [0_u8; 20];
    let mut rest = number;
    let mut at = digits.len();
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
        at -= 1;
        if rest == 0 {
            break;
        }
    }
    print(core::str::from_utf8(digits.get(at..).unwrap_or_default()).unwrap_or_default());
}

struct Out;

impl Write for Out {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        print(text);
        Ok(())
    }
}

#[panic_handler]
fn panicked(info: &PanicInfo<'_>) -> ! {
    let _ = write!(Out, "{}", info.message());
    print("\n");
    exit(101)
}

// What compiled code calls for copies, fills and comparisons. String instructions, so that the
// compiler cannot see a loop and turn it into a call of the very function that it is in.

/// # Safety
/// As C's `memcpy`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    // SAFETY: the caller's: `len` bytes can be read and written, and do not overlap.
    unsafe {
        asm!(
            "rep movsb",
            inout("rcx") len => _, inout("rdi") to => _, inout("rsi") from => _,
            options(nostack, preserves_flags),
        );
    }
    to
}

/// # Safety
/// As C's `memmove`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    if (to as usize).wrapping_sub(from as usize) >= len {
        // SAFETY: going up, every byte is read before it is overwritten.
        return unsafe { memcpy(to, from, len) };
    }
    // SAFETY: `to` lies within the bytes to read, so going down reads each before it is
    // overwritten; `len` is not 0 here, and the direction is restored.
    unsafe {
        asm!(
            "std", "rep movsb", "cld",
            inout("rcx") len => _,
            inout("rdi") to.wrapping_add(len).wrapping_sub(1) => _,
            inout("rsi") from.wrapping_add(len).wrapping_sub(1) => _,
            options(nostack),
        );
    }
    to
}

/// # Safety
/// As C's `memset`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, len: usize) -> *mut u8 {
    // SAFETY: the caller's: `len` bytes can be written.
    unsafe {
        asm!(
            "rep stosb",
            inout("rcx") len => _, inout("rdi") to => _, in("al") byte as u8,
            options(nostack, preserves_flags),
        );
    }
    to
}

/// # Safety
/// As C's `memcmp`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(one: *const u8, other: *const u8, len: usize) -> i32 {
    let (above, below): (u8, u8);
    // SAFETY: the caller's: `len` bytes can be read of both. The comparison of a register with
    // itself says "equal" where `len` is 0.
    unsafe {
        asm!(
            "cmp rcx, rcx", "repe cmpsb", "seta {above}", "setb {below}",
            above = out(reg_byte) above, below = out(reg_byte) below,
            inout("rcx") len => _, inout("rsi") one => _, inout("rdi") other => _,
            options(nostack, readonly),
        );
    }
    i32::from(above) - i32::from(below)
}

/// # Safety
/// As C's `bcmp`.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(one: *const u8, other: *const u8, len: usize) -> i32 {
    // SAFETY: the caller's.
    unsafe { memcmp(one, other, len) }
}

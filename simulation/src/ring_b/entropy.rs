//! The process's own dice and clock, replaced on the one simulated thread.
//!
//! Maps of the standard library, `rand` and the select of others draw their seeds from `getrandom`, and
//! logs, certificates and HTTP dates read `clock_gettime`. Both are functions of the C library, and the
//! program's own come before the library's: a thread that has begun here draws from its seed and reads
//! tokio's paused clock; every other thread gets the real ones.
#![expect(
    unsafe_code,
    reason = "two functions of the C library are replaced, in a simulation only"
)]

use std::{
    cell::Cell,
    ffi::{c_int, c_uint, c_void},
    time::Duration,
};
use tokio::time::Instant;

/// What the clocks show when a simulation begins: a day in 2023.
const EPOCH: Duration = Duration::from_millis(super::clock::EPOCH_MS);

thread_local! {
    static ACTIVE: Cell<bool> = const { Cell::new(false) };
    static DICE: Cell<u64> = const { Cell::new(0) };
    static DRAWS: Cell<u64> = const { Cell::new(0) };
    static BEGAN: Cell<Option<Instant>> = const { Cell::new(None) };
    static SHOWN: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    static ASKING: Cell<bool> = const { Cell::new(false) };
}

/// From here on this thread's dice follow from `seed`, and its clock stands still until
/// [`clock_begins`]. For the first line of a thread: what it drew before stays as it is.
pub(super) fn begin(seed: u64) {
    DICE.set(seed ^ 0x6d75_7374_6572);
    ACTIVE.set(true);
}

/// From here on this thread's clock is tokio's, which is paused.
pub(super) fn clock_begins() {
    BEGAN.set(Some(Instant::now()));
}

/// How often this thread drew. 0 after a simulation means that nothing was replaced.
pub(super) fn draws() -> u64 {
    DRAWS.get()
}

fn roll() -> u64 {
    let state = DICE.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    DICE.set(state);
    let mut z = state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Time since [`clock_begins`]. Outside of a runtime tokio asks the C library again, that is, us.
fn passed() -> Duration {
    if let Some(began) = BEGAN.get()
        && !ASKING.replace(true)
    {
        SHOWN.set(SHOWN.get().max(began.elapsed()));
        ASKING.set(false);
    }
    SHOWN.get()
}

/// # Safety
/// As `getrandom(2)` asks.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut c_void, bytes: usize, flags: c_uint) -> isize {
    if !ACTIVE.get() {
        // SAFETY: the caller's promise is passed on.
        let answer = unsafe { libc::syscall(libc::SYS_getrandom, buffer, bytes, flags) };
        return answer as isize;
    }
    DRAWS.set(DRAWS.get() + 1);
    for offset in 0..bytes {
        // SAFETY: the caller says that so many bytes may be written there.
        unsafe { buffer.cast::<u8>().add(offset).write(roll() as u8) };
    }
    bytes as isize
}

/// # Safety
/// As `clock_gettime(2)` asks.
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, shown: *mut libc::timespec) -> c_int {
    if !ACTIVE.get() {
        // SAFETY: the caller's promise is passed on.
        return unsafe { libc::syscall(libc::SYS_clock_gettime, clock, shown) } as c_int;
    }
    let now = EPOCH + passed();
    let (tv_sec, tv_nsec) = (now.as_secs() as libc::time_t, i64::from(now.subsec_nanos()));
    // SAFETY: the caller says that a `timespec` may be written there.
    unsafe { shown.write(libc::timespec { tv_sec, tv_nsec }) };
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::hash::{BuildHasher as _, RandomState};

    fn drawn(seed: u64) -> u64 {
        let drawn = std::thread::Builder::new().spawn(move || {
            begin(seed);
            let drawn = RandomState::new().hash_one(1);
            assert!(draws() > 0, "the functions of the C library are not replaced");
            drawn
        });
        drawn.unwrap().join().unwrap()
    }

    #[test]
    fn the_library_draws_from_the_seed() {
        assert_eq!(drawn(7), drawn(7));
        let all: BTreeSet<u64> = (0..8).map(drawn).collect();
        assert_eq!(all.len(), 8);
    }

    #[test]
    fn other_threads_have_real_dice() {
        drawn(7);
        let twice = [RandomState::new().hash_one(1), RandomState::new().hash_one(1)];
        assert_ne!(twice[0], twice[1]);
    }
}

//! Memory that runs out: an allocator for tests, which refuses the n-th large allocation.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fmt::{Debug, Display};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// The bytes from which on an allocation counts as large: more than the list of a shape, a name or a task of
/// a thread takes, whose sizes come from no input.
pub const LARGE: usize = 4096;

/// The system's allocator, which refuses large allocations where [`for_each_change`] says so.
///
/// A test binary makes it its own by
/// `#[global_allocator] static MEMORY: ScarceMemory = ScarceMemory;`.
#[derive(Debug)]
pub struct ScarceMemory;

/// How many large allocations still succeed.
static LEFT: AtomicUsize = AtomicUsize::new(usize::MAX);
/// Whether those after the first refused one are refused too.
static ALL_AFTER: AtomicBool = AtomicBool::new(false);
/// How many were refused.
static REFUSED: AtomicUsize = AtomicUsize::new(0);
static ALONE: Mutex<()> = Mutex::new(());

/// Held by a test that counts, from its beginning on: the other tests of its binary wait, whose allocations
/// would be refused.
pub fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_refused(bytes: usize) -> bool {
    if bytes < LARGE || LEFT.load(Ordering::Relaxed) == usize::MAX {
        return false;
    }
    let one_less = |left: usize| left.checked_sub(1);
    let refused = match LEFT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less) {
        Ok(_) => false,
        Err(_) => ALL_AFTER.load(Ordering::Relaxed) || REFUSED.load(Ordering::Relaxed) == 0,
    };
    REFUSED.fetch_add(refused.into(), Ordering::Relaxed);
    refused
}

// SAFETY: every method hands the call on to the system's allocator, whose contract is that of this one, or
// gives a null pointer, which says that there is no memory.
unsafe impl GlobalAlloc for ScarceMemory {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match is_refused(layout.size()) {
            true => std::ptr::null_mut(),
            // SAFETY: the caller's layout, of the same contract.
            false => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        match is_refused(layout.size()) {
            true => std::ptr::null_mut(),
            // SAFETY: the caller's layout, of the same contract.
            false => unsafe { System.alloc_zeroed(layout) },
        }
    }

    unsafe fn realloc(&self, data: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        match is_refused(size) {
            true => std::ptr::null_mut(),
            // SAFETY: the caller's memory, which came from the system's allocator, and layout.
            false => unsafe { System.realloc(data, layout, size) },
        }
    }

    unsafe fn dealloc(&self, data: *mut u8, layout: Layout) {
        // SAFETY: the caller's memory, which came from the system's allocator, and layout.
        unsafe { System.dealloc(data, layout) }
    }
}

/// [`for_each_change`] of an operation without a state, which has at least one large allocation.
///
/// # Panics
/// Where [`for_each_change`] does, or there is none.
pub fn for_each_failure<T: Debug + PartialEq, E: Display>(
    name: &str,
    run: impl Fn() -> Result<T, E>,
) -> usize {
    let allocations = for_each_change(name, &(), |()| run());
    assert!(allocations > 0, "{name}: no allocation is large");
    allocations
}

/// Runs an operation on a state with its n-th large allocation refused, n = 1, 2, 3, … until it has no more of
/// them: once with that one alone, once with all after it. Gives how many there are.
///
/// # Panics
/// Where the test does not hold [`alone`]; where the result and the state are neither those that there are with enough memory, nor an error that says that there is no memory
/// and the state as it was; where there is a result though all allocations from one on were refused.
pub fn for_each_change<S: Clone + Debug + PartialEq, T: Debug + PartialEq, E: Display>(
    name: &str,
    before: &S,
    run: impl Fn(&mut S) -> Result<T, E>,
) -> usize {
    let is_alone = matches!(ALONE.try_lock(), Err(TryLockError::WouldBlock));
    assert!(is_alone, "{name}: the test does not hold `alone`");
    let mut after = before.clone();
    let expected = match run(&mut after) {
        Ok(expected) => expected,
        Err(error) => panic!("{name}: {error}"),
    };
    for n in 0.. {
        for all_after in [false, true] {
            let mut state = before.clone();
            let (result, refused) = with_memory_for(n, all_after, || run(&mut state));
            match result {
                Ok(_) if refused > 0 && all_after => {
                    panic!("{name}: a result without its allocation {n}");
                }
                Ok(result) => {
                    assert!(result == expected, "{name}: {result:?} at allocation {n}");
                    assert!(state == after, "{name}: {state:?} at allocation {n}");
                }
                Err(error) => {
                    let text = error.to_string();
                    assert!(text.contains("there is no memory for"), "{name}: {text}");
                    assert!(state == *before, "{name}: {state:?} at allocation {n}");
                }
            }
            if refused == 0 {
                return n;
            }
        }
    }
    unreachable!("allocations are counted up to the last")
}

/// The result of an operation of which `n` large allocations succeed, and how many were refused.
fn with_memory_for<R>(n: usize, all_after: bool, run: impl FnOnce() -> R) -> (R, usize) {
    ALL_AFTER.store(all_after, Ordering::Relaxed);
    REFUSED.store(0, Ordering::Relaxed);
    LEFT.store(n, Ordering::Relaxed);
    let result = run();
    LEFT.store(usize::MAX, Ordering::Relaxed);
    (result, REFUSED.load(Ordering::Relaxed))
}

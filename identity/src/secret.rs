//! A value that must never be printed: private keys and token secrets.
//!
//! It has no `Display`, no serde, and its `Debug` says `[secret]`; the bytes are overwritten when
//! it is dropped. Reading it is the visible call `expose`.

use std::fmt;

use zeroize::Zeroize;

/// Holds a secret, hides it from `Debug` and overwrites it on drop.
#[derive(Clone)]
pub struct Secret<T: Zeroize>(T);

impl<T: Zeroize> Secret<T> {
    /// Takes the value in; copies made before are the caller's to forget.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself, for the one place that needs it. Never log what it returns.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl<T: Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_hides_the_value_however_deep_it_sits() {
        #[derive(Debug)]
        #[expect(dead_code, reason = "read by Debug only, which is what is tested")]
        struct Outer {
            inner: Option<Secret<String>>,
        }
        let printed = format!("{:#?}", Outer { inner: Some(Secret::new("hunter2".to_owned())) });
        assert!(printed.contains("[secret]"));
        assert!(!printed.contains("hunter2"));
    }
}

//! `shared!`: plain structs that cross the kernel boundary, in which padding is a compile error.
//!
//! Structs are aligned to eight bytes, so that both sides copy them in words.
//!
//! Fields are integers and arrays of them. The macro derives what maps need and, under the `user`
//! feature, marks the type as plain data for aya.

/// Defines `#[repr(C)]` structs without implicit padding.
#[macro_export]
macro_rules! shared {
    ($(
        $(#[$attribute:meta])*
        pub struct $name:ident { $( $(#[$field_attribute:meta])* pub $field:ident : $kind:ty ),+ $(,)? }
    )+) => { $(
        $(#[$attribute])*
        #[repr(C, align(8))]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name { $( $(#[$field_attribute])* pub $field : $kind ),+ }

        const _: () = assert!(
            size_of::<$name>() == 0 $( + size_of::<$kind>() )+,
            concat!(stringify!($name), " has implicit padding: add an explicit `pad` field"),
        );

        impl $name {
            /// The value whose bytes are all zero.
            pub const ZERO: Self = Self { $( $field: <$kind as $crate::shared::Zero>::ZERO ),+ };
        }

        impl $crate::shared::Zero for $name {
            const ZERO: Self = Self::ZERO;
        }

        // SAFETY: repr(C), Copy, no padding (asserted above), and every bit pattern of the fields is valid.
        #[cfg(feature = "user")]
        unsafe impl aya::Pod for $name {}
    )+ };
}

/// Types whose all-zero bytes are a value.
pub trait Zero {
    /// That value.
    const ZERO: Self;
}

impl Zero for u8 {
    const ZERO: Self = 0;
}
impl Zero for u16 {
    const ZERO: Self = 0;
}
impl Zero for u32 {
    const ZERO: Self = 0;
}
impl Zero for u64 {
    const ZERO: Self = 0;
}
impl<T: Zero + Copy, const N: usize> Zero for [T; N] {
    const ZERO: Self = [T::ZERO; N];
}

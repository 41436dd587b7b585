//! Parameter structs of the kernels, field for field those of `kernels/*.cu`; a test compares the layouts.
//!
//! Addresses are device addresses; 0 means none where the kernel's documentation allows that.

use bytemuck::Pod;

/// A struct that a kernel takes, or a part of one.
pub trait Params: Pod {
    /// Its name on both sides.
    const NAME: &str;
    /// Its fields in order.
    const FIELDS: &[Field];
}

/// Name, offset and size of a field.
pub type Field = (&'static str, usize, usize);

macro_rules! params {
    ($($(#[$doc:meta])* struct $Name:ident { $($(#[$note:meta])* $field:ident: $Type:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[repr(C)]
            #[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
            pub struct $Name { $($(#[$note])* pub $field: $Type,)* }

            impl Params for $Name {
                const NAME: &str = stringify!($Name);
                const FIELDS: &[Field] =
                    &[$((stringify!($field), std::mem::offset_of!($Name, $field), size_of::<$Type>()),)*];
            }
        )*

        /// Name, size and fields of each struct in this file.
        pub(super) const STRUCTS: &[(&str, usize, &[Field])] = &[$((stringify!($Name), size_of::<$Name>(), $Name::FIELDS),)*];
    };
}

mod ceiling;
mod conv;
mod neurons;
mod parts;
mod training;

pub use ceiling::*;
pub use conv::*;
pub use neurons::*;
pub use parts::*;
pub use training::*;

/// Every struct's name, size and fields.
pub fn all() -> Vec<(&'static str, usize, &'static [Field])> {
    [parts::STRUCTS, ceiling::STRUCTS, conv::STRUCTS, neurons::STRUCTS, training::STRUCTS].concat()
}

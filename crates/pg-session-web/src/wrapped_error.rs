//! [`wrapped_error!`](crate::wrapped_error): an error of this crate as a type of an edge, which its framework can answer.

/// Declares a type around an error of this crate, with its message and its source.
#[doc(hidden)]
#[macro_export]
macro_rules! wrapped_error {
    ($(#[$attribute:meta])* $name:ident($error:ty)) => {
        $(#[$attribute])*
        #[derive(Debug)]
        pub struct $name($error);

        impl From<$error> for $name {
            fn from(error: $error) -> Self {
                Self(error)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::error::Error for $name {
            fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
                self.0.source()
            }
        }
    };
}

//! The macro `awaited!`: lets a builder be awaited.

/// Makes `.await` on the builder carry out the method. The future is in a box, so that the caller's is small.
macro_rules! awaited {
    ($builder:ident, $method:ident => $output:ty) => {
        impl<'a> std::future::IntoFuture for $builder<'a> {
            type Output = $output;
            type IntoFuture = std::pin::Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

            fn into_future(self) -> Self::IntoFuture {
                Box::pin(self.$method())
            }
        }
    };
}

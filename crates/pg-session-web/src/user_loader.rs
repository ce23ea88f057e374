//! [`UserLoader`]: the application's function that loads a user.

use std::any::{Any, TypeId};
use std::error::Error as StdError;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use pg_session::UserId;

pub(crate) type Loaded = Result<Option<Arc<dyn Any + Send + Sync>>, Box<dyn StdError + Send + Sync>>;
pub(crate) type Load = dyn Fn(UserId) -> Pin<Box<dyn Future<Output = Loaded> + Send>> + Send + Sync;

/// The function of [`load_user`](crate::SessionConfig::load_user), and the type that it returns.
#[derive(Clone)]
pub(crate) struct UserLoader {
    pub(crate) load: Arc<Load>,
    pub(crate) type_id: TypeId,
}

impl UserLoader {
    pub(crate) fn new<T, F, R, E>(load: F) -> Self
    where
        T: Send + Sync + 'static,
        F: Fn(UserId) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Option<T>, E>> + Send + 'static,
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        let load = move |user| -> Pin<Box<dyn Future<Output = Loaded> + Send>> {
            let loading = load(user);
            Box::pin(async move {
                let user = loading.await.map_err(Into::into)?;
                Ok(user.map(|user| Arc::new(user) as Arc<dyn Any + Send + Sync>))
            })
        };
        Self { load: Arc::new(load), type_id: TypeId::of::<T>() }
    }
}

impl fmt::Debug for UserLoader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserLoader").finish_non_exhaustive()
    }
}

//! Arrays as parameters: one for each column of an `unnest`.

use sqlx::postgres::{PgArguments, PgBindIterExt, PgHasArrayType, Postgres};
use sqlx::query::Query;
use sqlx::{Encode, Type};

/// Binds columns of a list of items.
pub(crate) trait Columns<'q>: Sized {
    /// One array: what `get` says of each item.
    fn column<I, T, F>(self, items: &'q [I], get: F) -> Self
    where
        T: Type<Postgres> + PgHasArrayType + Encode<'q, Postgres> + 'q,
        F: Fn(&'q I) -> T + 'q;
}

impl<'q> Columns<'q> for Query<'q, Postgres, PgArguments> {
    fn column<I, T, F>(self, items: &'q [I], get: F) -> Self
    where
        T: Type<Postgres> + PgHasArrayType + Encode<'q, Postgres> + 'q,
        F: Fn(&'q I) -> T + 'q,
    {
        self.bind(items.iter().map(get).bind_iter())
    }
}

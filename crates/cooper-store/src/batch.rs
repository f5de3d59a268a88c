//! Statements of a change whose answers nobody reads one by one, in one call: each call is a journey to SQLite's thread and
//! back, and takes longer than what a small statement does there.

use sqlx::query_builder::Separated;
use sqlx::{Encode, QueryBuilder, Sqlite, SqliteConnection, Type};

/// Statements with their values, in their order. The first that fails ends it.
///
/// Texts of the statements are the program's own, and hold no place for a value: each value makes its own.
pub(crate) struct Batch(QueryBuilder<Sqlite>);

impl Batch {
    pub(crate) fn new() -> Self {
        Self(QueryBuilder::new(""))
    }

    /// Inserts a row `into` a table with its columns: `table (one, two)`.
    pub(crate) fn insert(&mut self, into: &'static str, values: impl FnOnce(&mut Separated<'_, Sqlite, &'static str>)) {
        self.next().push("INSERT INTO ").push(into).push(" VALUES (");
        values(&mut self.0.separated(", "));
        self.0.push(")");
    }

    /// Begins the next statement.
    pub(crate) fn statement(&mut self, text: &'static str) -> &mut Self {
        self.next();
        self.text(text)
    }

    /// Goes on with the statement.
    pub(crate) fn text(&mut self, text: &'static str) -> &mut Self {
        self.0.push(text);
        self
    }

    /// Goes on with a value.
    pub(crate) fn value<'t, T>(&mut self, value: T) -> &mut Self
    where
        T: 't + Encode<'t, Sqlite> + Type<Sqlite>,
    {
        self.0.push_bind(value);
        self
    }

    pub(crate) async fn execute(mut self, tx: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        match self.is_empty() {
            true => Ok(()),
            false => self.0.build().execute(tx).await.map(drop),
        }
    }

    fn next(&mut self) -> &mut QueryBuilder<Sqlite> {
        if !self.is_empty() {
            self.0.push("; ");
        }
        &mut self.0
    }

    fn is_empty(&self) -> bool {
        self.0.sql().as_str().is_empty()
    }
}

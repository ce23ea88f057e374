//! Array parameters, numbered as they are used, and hidden from the planner.
//!
//! PostgreSQL plans a prepared statement again for its first five executions. It goes on doing so while that plan
//! looks cheaper than the generic plan, which assumes ten elements. A short array always looks cheaper. Planning the
//! combined update takes longer than executing it.
//!
//! Through a subselect an array's length is unknown in both plans. So they cost the same, and the sixth
//! execution keeps the generic one. No setting of the connection is needed, so it holds for the
//! application's pool, too. Decision 010 has the measurements.

use tokio_postgres::types::{Kind, Type};

pub(super) const IDS: Type = Type::UUID_ARRAY;
pub(super) const NUMBERS: Type = Type::INT8_ARRAY;
pub(super) const TEXTS: Type = Type::TEXT_ARRAY;
pub(super) const TIMES: Type = Type::TIMESTAMPTZ_ARRAY;
pub(super) const FLAGS: Type = Type::BOOL_ARRAY;

/// A statement's parameters so far.
#[derive(Default)]
pub(super) struct Parameters {
    pub(super) types: Vec<Type>,
}

impl Parameters {
    /// The next parameter, a single value. Not hidden: a plan for it costs the same whatever it is.
    pub(super) fn scalar(&mut self, scalar: &Type) -> String {
        self.types.push(scalar.clone());
        format!("${}::pg_catalog.{}", self.types.len(), scalar.name())
    }

    /// The next parameters, arrays of equal length, as a table function.
    pub(super) fn unnest(&mut self, arrays: &[Type]) -> String {
        let arrays = arrays.iter().map(|array| format!("pg_catalog.unnest({})", self.opaque_array(array)));
        // `unnest` with several arguments cannot be qualified. This is what PostgreSQL makes of it.
        format!("ROWS FROM ({})", arrays.collect::<Vec<_>>().join(", "))
    }

    /// The next parameter as the right side of `=`.
    pub(super) fn any(&mut self, array: &Type) -> String {
        let hidden = self.opaque_array(array);
        // The cast makes it an array rather than a subquery with one row for each candidate.
        format!("ANY ({hidden}::{})", name(array))
    }

    /// The next parameter as an array.
    pub(super) fn opaque_array(&mut self, array: &Type) -> String {
        self.types.push(array.clone());
        format!("(SELECT ${}::{})", self.types.len(), name(array))
    }
}

fn name(array: &Type) -> String {
    match array.kind() {
        Kind::Array(element) => format!("pg_catalog.{}[]", element.name()),
        _ => format!("pg_catalog.{}", array.name()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_numbered_in_the_order_of_their_use() {
        let mut parameters = Parameters::default();
        let table = parameters.unnest(&[IDS, NUMBERS]);
        assert_eq!(
            table,
            "ROWS FROM (pg_catalog.unnest((SELECT $1::pg_catalog.uuid[])), pg_catalog.unnest((SELECT $2::pg_catalog.int8[])))"
        );
        assert_eq!(parameters.any(&IDS), "ANY ((SELECT $3::pg_catalog.uuid[])::pg_catalog.uuid[])");
        assert_eq!(parameters.scalar(&Type::INT8), "$4::pg_catalog.int8");
        assert_eq!(parameters.types, [IDS, NUMBERS, IDS, Type::INT8]);
    }
}

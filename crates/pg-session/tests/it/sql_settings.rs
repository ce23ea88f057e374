//! A client's settings change neither what the SQL functions do nor what they return.

use pg_session::{SessionId, SessionManager, UserId};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::fixtures::read;
use crate::support::World;

/// What administrators, drivers and other applications set for a connection.
const SETTINGS: [&str; 8] = [
    "SET standard_conforming_strings = off",
    "SET standard_conforming_strings = off; SET escape_string_warning = off; SET backslash_quote = on",
    "SET bytea_output = 'escape'; SET DateStyle = 'German, DMY'; SET IntervalStyle = 'sql_standard'",
    "SET TimeZone = 'Pacific/Apia'; SET extra_float_digits = -15; SET array_nulls = off",
    "SET transform_null_equals = on; SET quote_all_identifiers = on; SET xmlbinary = 'hex'",
    "SET plpgsql.extra_errors = 'all'; SET plpgsql.extra_warnings = 'all'; SET check_function_bodies = off",
    "SET plan_cache_mode = 'force_custom_plan'; SET enable_indexscan = off; SET row_security = off",
    "SET search_path = ''; SET client_min_messages = 'debug1'",
];

async fn answer(client: &Client, call: &str) -> String {
    let row = client.query_one(&format!("SELECT {call}"), &[]).await;
    row.unwrap_or_else(|error| panic!("{call}: {error:?}")).get(0)
}

#[tokio::test]
async fn functions_mean_the_same_with_any_setting_of_the_caller() {
    let world = World::new();
    let [a, b]: [SessionManager; 2] = world.nodes().await;
    let schema = &world.schema;
    let name = "Zo\u{eb} \\ \"'";
    let by_number = UserId::from(i64::MIN).as_uuid().to_string();
    for settings in SETTINGS {
        let operator = world.operator().await;
        let expected = UserId::named(name).as_uuid().to_string();
        let user_of = format!("SELECT {schema}.session_user_of($1::text)::text");
        operator.batch_execute(settings).await.unwrap();
        let got = operator.query_one(&user_of, &[&name]).await;
        let got: String = got.unwrap_or_else(|error| panic!("{settings}: {error:?}")).get(0);
        assert_eq!(got, expected, "{settings}");
        let call = format!("{schema}.session_user_of((-9223372036854775808)::bigint)::text");
        assert_eq!(answer(&operator, &call).await, by_number, "{settings}");

        let create =
            format!("{schema}.session_create({schema}.session_user_of(7), '{{\"role\": \"admin\"}}')::text");
        let id: Uuid = answer(&operator, &create).await.parse().unwrap();
        let id = SessionId::from_uuid(id);
        let set = format!(
            "SELECT {schema}.session_set($1, $2::text, to_jsonb($2::text), now() + interval '1 hour')"
        );
        for key in ["theme", "a\\b", "[\u{1}-\u{1f}\"", "\u{2028}", "]"] {
            let version = operator.query_one(&set, &[&id.expose(), &key]).await;
            version.unwrap_or_else(|error| panic!("{settings}: {key:?}: {error:?}"));
        }
        a.catch_up().await.unwrap();
        let session = read(&a, id).await;
        for key in ["theme", "a\\b", "[\u{1}-\u{1f}\"", "\u{2028}", "]"] {
            assert_eq!(session.get::<String>(key).unwrap().as_deref(), Some(key), "{settings}");
        }
        let label = format!("{schema}.session_add_label('{}', 'tenant:7')::text", id.expose());
        assert_eq!(answer(&operator, &label).await, "7", "{settings}");
        for (list, of) in [
            ("session_list", format!("{schema}.session_user_of(7)")),
            ("session_list_label", "'tenant:7'".to_owned()),
        ] {
            let listed = format!("(SELECT pg_catalog.count(*)::text FROM {schema}.{list}({of}))");
            assert_eq!(answer(&operator, &listed).await, "1", "{settings}: {list}");
        }
        let end = format!("{schema}.session_end_label('tenant:7', cause => 'admin')::text");
        assert_eq!(answer(&operator, &end).await, "1", "{settings}");
        b.catch_up().await.unwrap();
        assert!(b.get(id).await.unwrap().is_none(), "{settings}");
    }
}

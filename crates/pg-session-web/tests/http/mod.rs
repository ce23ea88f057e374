//! What the edges' tests share: a server, a browser, one application, and the scenarios that each edge has to pass over real
//! HTTP. An edge includes this file, says how it serves [`app::act`], and calls [`scenarios`].

#![allow(dead_code, reason = "each edge's binary uses its part")]

pub mod app;
pub mod browser;
pub mod example;
pub mod program;
pub mod world;

pub mod anonymous;
pub mod caching;
pub mod cross_site;
pub mod development;
pub mod flows;
pub mod forgetting;
pub mod guards;
pub mod hang_up;
pub mod keys;
pub mod login;
pub mod nested;
pub mod outcomes;
pub mod remember;
pub mod step_up;
pub mod tokens;
pub mod users;

/// Makes a test of each scenario, for an edge that serves with `$serve`.
#[macro_export]
macro_rules! scenarios {
    ($serve:expr; $($module:ident: $($name:ident),+;)+) => {
        $(mod $module {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                $crate::http::$module::$name(&$crate::http::world::Site::new($serve).await).await;
            })+
        })+
    };
}

/// All scenarios.
#[macro_export]
macro_rules! all_scenarios {
    ($serve:expr) => {
        $crate::scenarios! { $serve;
            anonymous:
                ten_thousand_visitors_leave_no_row_and_ask_no_query,
                what_a_visitor_sets_is_there_with_the_next_request,
                an_attribute_over_a_limit_fails_when_it_is_set,
                a_removal_or_a_logout_of_nothing_makes_nothing,
                an_anonymous_session_is_short_and_a_change_renews_it,
                clients_without_cookies_create_a_bounded_number_of_rows;
            caching:
                a_response_that_was_shaped_by_the_session_varies,
                every_cookie_goes_with_no_store,
                a_public_response_carries_no_cookie_and_begins_no_session,
                a_login_makes_a_public_response_private,
                no_cache_may_store_a_token,
                a_read_after_a_key_rotation_keeps_its_cache_headers,
                signed_in_pages_are_no_store_unless_handler_overrides;
            cross_site:
                another_sites_form_changes_nothing,
                cross_site_requests_are_accepted_where_it_was_asked_for,
                an_accepted_cross_site_request_replaces_no_session,
                a_form_token_belongs_to_one_session_and_id;
            flows:
                a_flow_is_taken_once_on_any_node,
                two_tabs_have_flows_of_their_own,
                a_callback_that_posts_a_form_brings_its_flow,
                a_browser_has_a_bounded_number_of_flows,
                a_flow_ends_after_ten_minutes;
            development:
                a_development_key_serves_only_localhost;
            forgetting:
                an_old_cookie_of_an_ended_session_is_removed,
                a_request_beside_a_login_does_not_remove_the_cookie;
            guards:
                a_visitor_is_sent_to_the_login_page_and_back,
                scripts_and_forms_get_401_and_a_sentence,
                a_guarded_router_lets_only_users_in,
                an_optional_user_may_be_a_visitor,
                a_user_is_no_visitor_when_the_database_is_away,
                a_step_up_keeps_the_page,
                every_refusal_is_the_applications_to_word;
            hang_up:
                a_save_is_finished_when_the_connection_was_reset;
            keys:
                key_rotation_logs_no_user_out_and_removed_key_rejects;
            login:
                a_planted_id_is_never_adopted,
                a_planted_session_of_a_visitor_does_not_become_the_victims,
                what_a_visitor_had_is_kept_only_where_it_was_asked_for,
                a_label_of_a_login_goes_with_its_user,
                parallel_requests_with_retired_id_see_old_state,
                retired_id_is_served_for_configured_grace_only,
                two_logins_at_once_both_end_signed_in,
                parallel_logins_with_one_old_id_share_one_session,
                an_old_id_leads_to_no_other_session,
                a_client_behind_proxies_is_recorded_with_its_own_address,
                the_others_of_a_theft_are_the_old_ids_too,
                without_grace_the_old_id_ends_with_the_login,
                a_login_with_a_cap_ends_the_users_other_sessions,
                devices_are_listed_and_ended_by_their_own_user_only,
                logout_everywhere_and_elsewhere_reaches_other_browsers;
            nested:
                nested_layers_share_one_session,
                a_nested_cookie_is_set_and_removed_alike;
            outcomes:
                slow_request_does_not_revive_logged_out_session,
                a_slow_request_does_not_revive_a_session_that_expired,
                a_refusal_says_what_to_do,
                a_failed_handler_saves_nothing,
                a_handler_that_timed_out_saves_nothing,
                a_conflict_is_reported_if_attributes_are_checked,
                unreachable_database_is_503_never_anonymous,
                an_attribute_is_taken_once_and_counted_exactly,
                of_many_that_insert_at_once_all_get_what_one_has_stored,
                an_attribute_of_another_type_is_an_error_of_that_key_only,
                a_message_is_shown_once;
            remember:
                a_remembered_login_is_not_idle_and_keeps_its_cookie,
                a_remembered_login_keeps_to_its_assurance_level,
                a_login_that_is_not_remembered_ends_with_the_browser,
                a_page_that_polls_does_not_keep_an_idle_user_alive;
            step_up:
                a_privilege_is_demanded_given_under_a_new_id_and_ends;
            tokens:
                the_cookie_has_all_flags,
                a_node_clock_that_is_ahead_does_not_shorten_the_cookie,
                forged_and_truncated_tokens_cost_no_query,
                forged_or_truncated_token_never_reaches_database,
                a_planted_cookie_does_not_hide_the_valid_one,
                two_live_sessions_count_as_none_until_a_login,
                a_retired_id_beside_its_session_is_not_a_second_session,
                a_logout_with_too_many_sessions_is_an_error,
                a_logout_ends_every_session_that_was_presented,
                a_visitors_change_with_two_sessions_adds_one_row,
                a_bearer_carries_its_token_in_headers,
                a_client_sees_its_own_writes_on_the_next_node,
                a_client_of_a_restored_database_gets_a_fresh_token;
            users:
                a_user_is_loaded_once_until_the_session_changes,
                a_user_who_cannot_be_loaded_is_no_visitor;
        }
    };
}

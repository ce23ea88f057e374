//! Stories of threads around one cache, each in many schedules, with all guards and without one.

mod schedules;
mod stories;

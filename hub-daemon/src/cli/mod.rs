//! `hubctl`.

//! Facts and decisions.
#![no_std]

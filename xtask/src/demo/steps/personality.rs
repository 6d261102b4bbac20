//! A live interface gets another network configuration, or has its old one back.

mod back;
mod begin;
mod end;
mod over;

pub(super) use self::{
    back::{confirm, fail, killed},
    begin::{plan, start},
    end::{finish, told},
    over::switch,
};

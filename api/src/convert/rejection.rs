//! Rejections inside messages. A refused call carries the same as error details: see
//! [`status`](crate::status).

use super::field::{self, Read};
use crate::v1;
use model::{Class, Rejection};

/// The message of a rejection.
pub fn to_proto(rejection: &Rejection) -> v1::Rejection {
    v1::Rejection {
        class: match rejection.class {
            Class::InvalidArgument => v1::RejectionClass::InvalidArgument,
            Class::NotFound => v1::RejectionClass::NotFound,
            Class::AlreadyExists => v1::RejectionClass::AlreadyExists,
            Class::Aborted => v1::RejectionClass::Aborted,
            Class::FailedPrecondition => v1::RejectionClass::FailedPrecondition,
            Class::PermissionDenied => v1::RejectionClass::PermissionDenied,
            Class::Unauthenticated => v1::RejectionClass::Unauthenticated,
            Class::ResourceExhausted => v1::RejectionClass::ResourceExhausted,
        }
        .into(),
        code: rejection.code.clone(),
        message: rejection.message.clone(),
        field: rejection.field.clone(),
        remedy: rejection.remedy.clone(),
        details: rejection.details.clone(),
    }
}

/// The rejection of a message.
///
/// # Errors
/// `FIELD` when its class is unknown.
pub fn from_proto(rejection: v1::Rejection) -> Read<Rejection> {
    Ok(Rejection {
        class: match v1::RejectionClass::try_from(rejection.class) {
            Ok(v1::RejectionClass::InvalidArgument) => Class::InvalidArgument,
            Ok(v1::RejectionClass::NotFound) => Class::NotFound,
            Ok(v1::RejectionClass::AlreadyExists) => Class::AlreadyExists,
            Ok(v1::RejectionClass::Aborted) => Class::Aborted,
            Ok(v1::RejectionClass::FailedPrecondition) => Class::FailedPrecondition,
            Ok(v1::RejectionClass::PermissionDenied) => Class::PermissionDenied,
            Ok(v1::RejectionClass::Unauthenticated) => Class::Unauthenticated,
            Ok(v1::RejectionClass::ResourceExhausted) => Class::ResourceExhausted,
            Ok(v1::RejectionClass::Unspecified) | Err(_) => {
                return field::unknown_word("class", "the classes of refusals");
            }
        },
        code: rejection.code,
        message: rejection.message,
        field: rejection.field,
        remedy: rejection.remedy,
        details: rejection.details,
    })
}

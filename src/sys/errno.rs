//! Error numbers of the kernel that callers tell apart, so that only this room names libc.

pub use libc::{
    EACCES, EAFNOSUPPORT, EAGAIN, EBADF, ECANCELED, ECONNREFUSED, EHOSTUNREACH, EINVAL, ELOOP,
    EMSGSIZE, ENETDOWN, ENETUNREACH, ENOBUFS, ENODEV, ENOMEM, ENOTSOCK, EOPNOTSUPP, EPERM,
    EPROTOTYPE,
};

// Whether the other side of a connection will send no more, asked now and without reading.
//
// poll(2) alone does not tell it for TCP: the end of a stream comes behind its data, and what does
// not fit into the receiver's window stays with the sender. A client that was killed then looks
// connected for as long as nobody reads from it. The other end of a connection over loopback is a
// socket of this machine, and the kernel tells the state of that. Source: poll(2), sock_diag(7).
#pragma once

namespace ublkd::io {

/// True once the other side of the connected stream socket `fd` has closed it, shut its sending
/// side down, or died, also while data that came before is still unread. For TCP over a network,
/// or where the kernel has no tcp_diag, only once its end has come through.
bool has_hung_up(int fd);

}  // namespace ublkd::io

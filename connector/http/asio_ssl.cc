// The TLS part of Asio, compiled once; the rest is compiled in runtime/ (BOOST_ASIO_SEPARATE_COMPILATION).
#include <boost/asio/ssl/impl/src.hpp>

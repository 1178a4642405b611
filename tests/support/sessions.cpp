// SPDX-License-Identifier: MIT
//
// Every session that the header knows, instantiated: for the programs of meson.build, and for
// compilers and tools that are to see all of the header. See tests/matrix.sh.

#include "../../hub_session.hpp"

#if !defined(HUB_SESSION_INTERFACE_ONLY)
template class hub::basic_training_session<
    hub::testing::fake_transport, hub::testing::virtual_clock, hub::testing::virtual_sleeper>;
template class hub::basic_training_session<hub::any_transport, hub::testing::virtual_clock,
                                           hub::testing::virtual_sleeper>;
template class hub::basic_training_session<hub::any_transport, hub::steady_clock,
                                           hub::thread_sleeper>;
#if !defined(HUB_SESSION_NO_HTTPLIB)
template class hub::basic_training_session<hub::httplib_transport, hub::steady_clock,
                                           hub::thread_sleeper>;
#endif

// clang++ 14 instantiates members as well whose constraints do not hold. There each program compiles
// the sessions of the Platform that it uses.
#if !defined(__clang__)
template class hub::basic_training_session<hub::testing::fake_transport,
                                           hub::testing::virtual_clock,
                                           hub::testing::virtual_sleeper, hub::platform>;
template class hub::basic_training_session<hub::any_transport, hub::testing::virtual_clock,
                                           hub::testing::virtual_sleeper, hub::platform>;
#if !defined(HUB_SESSION_NO_HTTPLIB)
template class hub::basic_training_session<hub::httplib_transport, hub::steady_clock,
                                           hub::thread_sleeper, hub::platform>;
#endif
#endif
#endif

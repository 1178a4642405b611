// SPDX-License-Identifier: MIT
//
// The sessions that most programs use, said to be instantiated in sessions.cpp: a program that links
// it need not compile them again in each of its files.

#pragma once

#include "../../hub_session.hpp"

extern template class hub::basic_training_session<
    hub::testing::fake_transport, hub::testing::virtual_clock, hub::testing::virtual_sleeper>;
extern template class hub::basic_training_session<hub::any_transport, hub::testing::virtual_clock,
                                                  hub::testing::virtual_sleeper>;
extern template class hub::basic_training_session<hub::any_transport, hub::steady_clock,
                                                  hub::thread_sleeper>;
#if !defined(HUB_SESSION_NO_HTTPLIB)
extern template class hub::basic_training_session<hub::httplib_transport, hub::steady_clock,
                                                  hub::thread_sleeper>;
#endif

// clang++ 14 instantiates members as well whose constraints do not hold. There each program compiles
// the sessions of the Platform that it uses.
#if !defined(__clang__)
extern template class hub::basic_training_session<hub::testing::fake_transport,
                                                  hub::testing::virtual_clock,
                                                  hub::testing::virtual_sleeper, hub::platform>;
extern template class hub::basic_training_session<hub::any_transport, hub::testing::virtual_clock,
                                                  hub::testing::virtual_sleeper, hub::platform>;
#if !defined(HUB_SESSION_NO_HTTPLIB)
extern template class hub::basic_training_session<hub::httplib_transport, hub::steady_clock,
                                                  hub::thread_sleeper, hub::platform>;
#endif
#endif

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
#if !defined(HUB_SESSION_NO_HTTPLIB)
extern template class hub::basic_training_session<hub::httplib_transport, hub::steady_clock,
                                                  hub::thread_sleeper>;
#endif

// expect: no matching|cannot convert|could not convert|no viable conversion
// SPDX-License-Identifier: MIT

#include "hub_session.hpp"

#if defined(FIXED)
using metrics_of_text_value = double;
#else
using metrics_of_text_value = std::string;
#endif
void use_metrics_of_text(hub::training_callbacks& session,
                         const std::map<std::string, metrics_of_text_value>& metrics) {
  session.on_fit_epoch_end(0, metrics);
}

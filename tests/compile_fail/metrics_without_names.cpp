// expect: no matching|cannot convert|could not convert|no viable conversion
// SPDX-License-Identifier: MIT

#include "hub_session.hpp"

#if defined(FIXED)
using metrics_without_names_type = std::vector<std::pair<std::string, double>>;
#else
using metrics_without_names_type = std::vector<double>;
#endif
void use_metrics_without_names(hub::training_callbacks& session,
                               const metrics_without_names_type& metrics) {
  session.on_fit_epoch_end(0, metrics);
}

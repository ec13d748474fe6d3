#pragma once

#include "lib/check/validation.h"

namespace moelora {

// Reads, plans and runs every rule. What is wrong with an adapter is a finding; throws Error only
// for what the user named wrongly: load.base, load.from, load.model_specs, a source that cannot be
// read, a device that is not there; and where nobody can judge: a read that failed, whatever it was
// for, or an input that changed meanwhile.
// A base of a family that is not known, and one that an adapter names and that cannot be read, is a
// finding too: the rules that need none are run. Of adapters that are judged alone, one that the
// machine does not let us read, or that changes meanwhile, is a finding that nothing was judged.
// Without load.base the base is what adapters name in base_model_name_or_path: a folder with a
// config.json here, or a known hub name. One server has one base, so adapters of several are
// several deployments; adapters that name none are one without a base.
ValidationReport validate(const ValidateRequest& request);

}  // namespace moelora

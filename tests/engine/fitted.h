#pragma once

#include <string>
#include <vector>

#include "lib/engine/fit/fit.h"
#include "tests/adapter/made_adapter.h"

namespace moelora::test {

// Options of a fit for tests: one engine, server options, what may be dropped.
FitOptions fit_for(const std::string& engine, const std::vector<std::string>& server = {},
                   const std::vector<std::string>& drops = {}, const std::string& to = "");

// A made adapter read with a base of the catalogue, fitted, and the fit verified (verify_fit).
FittedAdapter fitted(const MadeAdapter& made, const std::string& family, const FitOptions& options);

// The whole conversion of the same, checked by the engine's plan (check_served) with `checked`.
Conversion converted(const MadeAdapter& made, const std::string& family, const FitOptions& options,
                     bool checked = true);

// The note of a repair; "" when that repair was not made.
std::string note_of(const Changes& changes, std::string_view repair);

bool all_zero(const Tensor& tensor);

// delta = scale * B A of one pair, row-major.
std::vector<double> delta_of(const Tensor& a, const Tensor& b, const Scaling& scaling);

// Attention of one layer of the catalogue's families with hidden 64 and 4 heads, 2 of them for k
// and v: "model.layers.L.self_attn.NAME" of rank `rank`.
void add_attention(MadeAdapter& made, int layer, const std::string& name, int64_t rank = 2);

}  // namespace moelora::test

#include "tests/engine/fitted.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "lib/base/cast.h"
#include "lib/engine/fit/deltas.h"

namespace moelora::test {

FitOptions fit_for(const std::string& engine, const std::vector<std::string>& server,
                   const std::vector<std::string>& drops, const std::string& to) {
  FitOptions out{parse_engine(engine), {}, server, to, {}, 1};
  for (const std::string& pair : server) set_server_option(out.server, pair, {&out.engine, 1});
  for (const std::string& drop : drops) out.drop.insert(parse_drop(drop));
  return out;
}

FittedAdapter fitted(const MadeAdapter& made, const std::string& family,
                     const FitOptions& options) {
  FittedAdapter out = fit_adapter(made.read(family), options);
  CHECK(verify_fit(out.meant, out.adapter, 1) > 0);
  return out;
}

Conversion converted(const MadeAdapter& made, const std::string& family, const FitOptions& options,
                     bool checked) {
  FittedConversion out = plan_fitted(made.read(family), options, {});
  CHECK(verify_fit(out.meant, out.conversion.adapter, 1) > 0);
  if (checked) check_served(out.conversion, "out", options, 0);
  return std::move(out.conversion);
}

std::string note_of(const Changes& changes, std::string_view repair) {
  for (const Change& entry : changes.made)
    if (entry.name == repair) return entry.note;
  return "";
}

bool all_zero(const Tensor& tensor) {
  const std::vector<double> values = read_double(tensor);
  return std::all_of(values.begin(), values.end(), [](double v) { return v == 0; });
}

std::vector<double> delta_of(const Tensor& a, const Tensor& b, const Scaling& scaling) {
  const std::vector<double> left = read_double(b), right = read_double(a);
  const int64_t rows = b.dim(0), rank = b.dim(1), columns = a.dim(1);
  std::vector<double> out(static_cast<size_t>(rows * columns));
  for (int64_t o = 0; o < rows; ++o)
    for (int64_t k = 0; k < rank; ++k)
      for (int64_t i = 0; i < columns; ++i)
        out[static_cast<size_t>(o * columns + i)] += scaling.value() *
                                                     left[static_cast<size_t>(o * rank + k)] *
                                                     right[static_cast<size_t>(k * columns + i)];
  return out;
}

void add_attention(MadeAdapter& made, int layer, const std::string& name, int64_t rank) {
  const int64_t out = name == "q_proj" || name == "o_proj" ? 64 : 32;
  made.pair("model.layers." + std::to_string(layer) + ".self_attn." + name, {rank, 64},
            {out, rank});
}

}  // namespace moelora::test

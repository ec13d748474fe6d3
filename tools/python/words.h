#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include <string>
#include <string_view>
#include <type_traits>

#include "lib/adapter/config/adapter_config.h"
#include "lib/base/error.h"
#include "lib/model/base_convert.h"
#include "lib/moelora.h"
#include "tools/python/strings.h"

namespace moelora::python {

namespace nb = nanobind;

// The options of one call, by the keywords of its Python function. Those that are None are left as
// they are. Only for a thread that holds the GIL.
class Words {
 public:
  explicit Words(nb::dict words) : words_(std::move(words)) {}

  // Raises TypeError where the value is of another type (True and False are no numbers), Error
  // where an integer is out of range.
  template <class T>
  void take(const char* key, T& out) const {
    const nb::object value = find(key);
    if (value.is_none()) return;
    constexpr bool kNumber = std::is_arithmetic_v<T> && !std::is_same_v<T, bool>;
    const bool fits = !(kNumber && nb::isinstance<nb::bool_>(value)) && nb::try_cast(value, out);
    if (!fits) refuse(key, value, kNumber && std::is_integral_v<T>);
  }
  template <class T>
  void take(const char* key, std::optional<T>& out) const {
    if (find(key).is_none()) return;
    take(key, out.emplace());
  }

  // "5GB", or a number of bytes.
  void take_size(const char* key, uint64_t& out) const;

  // What this function calls an option, "for_="; "" for one that it does not have.
  std::string spelling(Option option) const;

  nb::object find(const char* key) const;  // None where it is not there

 private:
  [[noreturn]] static void refuse(const char* key, const nb::object& value, bool wants_integer);

  nb::dict words_;
};

LoadOptions load_options(const Words& words);
ConvertOptions convert_options(const Words& words);
BaseConversion base_conversion(const Words& words);
ValidateOptions validate_options(const Words& words);
CompareWeightsOptions weights_options(const Words& words);
CompareLogprobsOptions logprobs_options(const Words& words);
ScoreFilesOptions scoring_options(const Words& words);
PredictOptions prediction_options(const Words& words);
ReportOptions report_options(const Words& words);

}  // namespace moelora::python

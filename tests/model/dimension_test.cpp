#include <doctest/doctest.h>

#include "lib/base/error.h"
#include "lib/model/expressions.h"
#include "tests/io/error_text.h"

namespace moelora {
namespace {

const Values kValues = {
    {"hidden", 64}, {"heads", 4}, {"head_dim", 24}, {"huge", int64_t{1} << 40}, {"none", 0}};

int64_t value(const std::string& text) {
  return Dimension::parse(text, "f.json").value(kValues, "c.json");
}

std::string fault(const std::string& text) {
  return error_text([&] { value(text); });
}

}  // namespace

TEST_CASE("A product may be taken away") {
  CHECK(value("heads - 1") == 3);
  CHECK(value("hidden - heads * 2 + 1 - 3") == 54);
  CHECK(value("heads - hidden") == -60);
  CHECK(fault("0 - 9223372036854775807 - 2").find("is too large") != std::string::npos);
}

TEST_CASE("A dimension is a sum of products of names and integers") {
  CHECK(value("7") == 7);
  CHECK(value("hidden") == 64);
  CHECK(value("2 * heads * head_dim + hidden") == 256);
  CHECK(value("2*heads+3*4") == 20);
  CHECK(value("none * hidden") == 0);
  CHECK(Dimension().value({}, "") == 0);
  CHECK(Dimension::parse("heads * head_dim", "").names() ==
        std::vector<std::string>{"heads", "head_dim"});
}

TEST_CASE("A factor divides exactly or not at all") {
  CHECK(value("hidden / heads") == 16);
  CHECK(value("2 * hidden / heads + 1") == 33);
  CHECK(fault("hidden / head_dim") ==
        "c.json: \"hidden / head_dim\": 64 / 24 is not a whole number");
  CHECK(fault("hidden / none") == "c.json: \"hidden / none\": 64 / 0 is not a whole number");
}

TEST_CASE("A dimension that cannot be read or evaluated says where and why") {
  CHECK(fault("heads +") == "f.json: expected a name or a number at character 8 of \"heads +\"");
  CHECK(fault("") == "f.json: expected a name or a number at character 1 of \"\"");
  CHECK(fault("heads ^ 1") == "f.json: unexpected '^' at character 7 of \"heads ^ 1\"");
  CHECK(fault("heads -") == "f.json: expected a name or a number at character 8 of \"heads -\"");
  CHECK(fault("2x") == "f.json: \"2x\" is not a number at character 3 of \"2x\"");
  CHECK(fault("99999999999999999999") ==
        "f.json: \"99999999999999999999\" is not a number at character 21 of "
        "\"99999999999999999999\"");
  CHECK(fault("width") == "c.json: no value is called \"width\"");
  CHECK(fault("huge * huge") ==
        "c.json: \"huge * huge\": 1099511627776 * 1099511627776 is too large");
  CHECK(fault("9223372036854775807 + 1") == "c.json: \"9223372036854775807 + 1\" is too large");
}

}  // namespace moelora

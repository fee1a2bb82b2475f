"""The fields of a conversion as they are sent."""

import math
from decimal import Decimal
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field

from admin.errors import Invalid
from admin.http.fields import Fields, documented
from admin.links.fields import Short
from admin.stats.conversions import Told

_PLACES = 4
_MAX_VALUE = 99_999_999_999.0  # with its places it has 15 digits, which a JSON number holds without loss

# ISO 4217, list one: what is money. Codes of metals, of funds and for tests are none.
_CODES = """
    AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE
    CHF CHW CLF CLP CNY COP COU CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD
    HKD HNL HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD
    MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR
    RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH
    UGX USD USN UYI UYU UYW UZS VED VES VND VUV WST XAF XCD XCG XOF XPF YER ZAR ZMW ZWG"""
CURRENCIES = tuple(_CODES.split())


def _money(value: float) -> float:
    """To four places. 0.30000000000000004 is what 0.1 + 0.2 is to a computer; 0.30001 is another number."""
    rounded = round(value, _PLACES)
    if abs(value - rounded) > 2 * math.ulp(value):
        raise ValueError(f"It must not have more than {_PLACES} decimal places.")
    return rounded


def _currency(text: str) -> str:
    if text not in CURRENCIES:
        raise ValueError("It must be a currency of ISO 4217, such as EUR.")
    return text


Value = Annotated[float, Field(ge=0, le=_MAX_VALUE), AfterValidator(_money), documented(multipleOf=10**-_PLACES)]
Currency = Annotated[str, AfterValidator(_currency), documented(enum=list(CURRENCIES))]
ClickId = Annotated[str, Field(pattern="^[A-Za-z0-9_-]{21}[AQgw]$")]


def _both_or_none(schema: dict[str, Any]) -> None:
    both = {
        "required": ["value", "currency"],
        "properties": {"value": {"type": "number"}, "currency": {"type": "string"}},
    }
    none = {"properties": {"value": {"type": "null"}, "currency": {"type": "null"}}}
    schema["anyOf"] = [both, none]


class NewConversion(Fields):
    """What POST takes."""

    model_config = ConfigDict(json_schema_extra=_both_or_none)

    click_id: ClickId
    name: Short
    value: Value | None = None
    currency: Currency | None = None
    external_id: Short | None = None

    def told(self) -> Told:
        """What it says. Raises `Invalid`."""
        if (self.value is None) != (self.currency is None):
            missing, given = ("currency", "value") if self.currency is None else ("value", "currency")
            raise Invalid.of(missing, f"It is required with {given}.")
        value = None if self.value is None else Decimal(str(self.value))
        return Told(self.click_id, self.name, value, self.currency, self.external_id)

"""Files of links as other shorteners write them, made up, and what is to be read in them."""

import json
from typing import Any

SHLINK = '''\
"createdAt","domain","shortCode","shortUrl","longUrl","title","tags","visits"
"2026-02-03T10:10:11+01:00","s.example.com","sale","https://s.example.com/sale","https://a.org/?""a""","A","x|y, z",42
"2026-01-01T00:00:00+00:00","s.example.com","%C3%A9","https://s.example.com/%C3%A9","https://example.org/","","",0'''
SHLINK_JSON = {
    "shortUrls": {
        "data": [
            {
                "shortUrl": "https://s.example.com/sale",
                "shortCode": "sale",
                "longUrl": "https://example.org/sale",
                "dateCreated": "2026-02-03T10:10:11+01:00",
                "tags": ["x", "y"],
                "meta": {"validSince": None, "validUntil": "2027-01-01T00:00:00+01:00", "maxVisits": 50},
                "domain": None,
                "title": None,
                "crawlable": False,
                "forwardQuery": True,
                "visitsSummary": {"total": 42, "nonBots": 40, "bots": 2},
                "hasRedirectRules": False,
                "deviceLongUrls": {"ios": "https://example.org/ios", "android": None, "desktop": None},
            }
        ],
        "pagination": {"currentPage": 1, "pagesCount": 1},
    }
}
DUB = """\
Short link,Destination URL,Clicks,Leads,Conversions,Revenue,Created at,Link ID,Updated at,Tags,Archived
https://a.example/sale,https://a.org/,42,3,1,"$1,234.50",2026-02-03T09:10:11.000Z,l_1,2026-02-04T00:00:00.000Z,"x, y",No
https://a.example,"https://example.org/?a=1,2",0,0,0,$0.00,2026-01-01T00:00:00.000Z,l_2,2026-01-01T00:00:00.000Z,'=odd,Yes"""
DUB_JSON = [
    {
        "id": "l_1",
        "domain": "go.example.com",
        "key": "sale",
        "url": "https://example.org/",
        "shortLink": "https://go.example.com/sale",
        "externalId": "crm-1",
        "archived": True,
        "expiresAt": "2027-01-01T00:00:00.000Z",
        "expiredUrl": "https://example.org/over",
        "disabledAt": None,
        "password": "a secret",
        "title": "A sale",
        "ios": "https://example.org/ios",
        "geo": {"BR": "https://example.org/br"},
        "publicStats": True,
        "tags": [{"id": "t_1", "name": "x", "color": "red"}],
        "comments": "a note",
        "clicks": 42,
        "createdAt": "2026-02-03T09:10:11.000Z",
    }
]
KUTT = {
    "total": 2,
    "limit": 50,
    "skip": 0,
    "data": [
        {
            "address": "sale",
            "banned": True,
            "created_at": "2026-02-03T09:10:11.155Z",
            "password": False,
            "description": "A sale",
            "expire_in": "2027-01-01 00:00:00",
            "target": "https://example.org/sale",
            "visit_count": 42,
            "domain": "go.example.com",
            "link": "https://go.example.com/sale",
        },
        {
            "address": "aB3",
            "password": True,
            "description": None,
            "expire_in": None,
            "target": "https://example.org/",
            "visit_count": "1,234",
            "domain": None,
            "link": {"address": "aB3", "link": "kutt.example.net/aB3", "url": "https://kutt.example.net/aB3"},
        },
    ],
}
YOURLS_JSON = {
    "links": {
        "link_1": {
            "shorturl": "https://sho.example/sale",
            "url": "https://example.org/",
            "title": "A sale",
            "timestamp": "2026-02-03 09:10:11",
            "ip": "203.0.113.7",
            "clicks": "42",
        },
        "link_2": {
            "shorturl": "https://sho.example/b",
            "url": "https://example.org/b",
            "title": "",
            "timestamp": "1970-01-01 00:00:00",
            "ip": "203.0.113.7",
            "clicks": 0,
        },
    },
    "stats": {"total_links": 2, "total_clicks": 42},
    "statusCode": "200",
}
SINK = {
    "version": "1.0",
    "exportedAt": "2026-02-03T09:10:11.000Z",
    "count": 1,
    "links": [
        {
            "id": "k3m9x2abcd",
            "url": "https://example.org/sale",
            "slug": "sale",
            "comment": "a note",
            "createdAt": 1770109811,
            "expiration": 1798761600,
            "geo": {"DE": "https://example.org/de"},
            "apple": "https://example.org/ios",
            "tags": ["x"],
            "password": "sink-pwd:v1:10000:c2FsdA:aGFzaA:abc",
            "redirectWithQuery": True,
        }
    ],
}
SHORTIO_JSON = {
    "count": 1,
    "links": [
        {
            "idString": "lnk_1",
            "originalURL": "https://example.org/sale",
            "path": "Sale",
            "shortURL": "https://go.example.com/Sale",
            "title": "A sale",
            "tags": ["x"],
            "createdAt": "2026-02-03T09:10:11.897Z",
            "archived": False,
            "hasPassword": False,
            "expiresAt": 1798761600000,
            "clicksLimit": 9,
            "redirectType": "307",
            "utmSource": "mail",
            "androidURL": "https://example.org/android",
            "skipQS": False,
        }
    ],
    "nextPageToken": None,
}
BITLY_JSON = {
    "links": [
        {
            "created_at": "2026-02-03T09:10:11+0000",
            "id": "bit.ly/3abcXyz",
            "link": "https://bit.ly/3abcXyz",
            "custom_bitlinks": ["https://go.example.com/sale", "https://go.example.com/offer"],
            "long_url": "https://example.org/sale",
            "title": "A sale",
            "archived": True,
            "tags": ["x"],
            "deeplinks": [],
        },
        {
            "created_at": "1970-01-01T00:00:00+0000",
            "id": "bit.ly/b",
            "link": "http://bit.ly/b",
            "custom_bitlinks": [],
            "long_url": "https://example.org/b",
            "title": None,
            "archived": False,
            "tags": [],
        },
    ],
    "pagination": {"next": "", "search_after": ""},
}


def link(hostname: str = "", path: str = "", destination: str = "https://example.org/", **more: Any) -> dict[str, Any]:
    return ({"hostname": hostname} if hostname else {}) | {"path": path, "destination": destination} | more


AT = "2026-02-03T09:10:11.000Z"
NEW_YEAR = "2027-01-01T00:00:00.000Z"
MADE = {"createdAt": AT}
SAMPLES: list[tuple[str, str, list[tuple[dict[str, Any], int]]]] = [
    (
        "Shlink, CSV of short URLs",
        SHLINK,
        [
            (
                link("s.example.com", "/sale", 'https://a.org/?"a"', title="A", tags=["x", "y, z"], **MADE),
                42,
            ),
            (link("s.example.com", "/%C3%A9", createdAt="2026-01-01T00:00:00.000Z"), 0),
        ],
    ),
    (
        "Shlink, CSV of short URLs before 3.10.1",
        "createdAt,shortUrl,longUrl,title,tags,visits\r\n"
        '2026-02-03T10:10:11+01:00,https://s.example.com/sale,https://example.org/,A,"x,y",7\r\n',
        [(link("s.example.com", "/sale", title="A", tags=["x", "y"], **MADE), 7)],
    ),
    (
        "Shlink, REST API or CSV for its import",
        "Long URL;Short code;Domain;Title;Tags\n"
        "https://example.org/;sale;;A;x|y\nhttps://example.org/;b;go.example.com;;\n",
        [(link("", "/sale", title="A", tags=["x", "y"]), 0), (link("go.example.com", "/b"), 0)],
    ),
    (
        "Shlink, REST API or CSV for its import",
        json.dumps(SHLINK_JSON),
        [
            (
                link("s.example.com", "/sale", "https://example.org/sale", tags=["x", "y"], **MADE)
                | {"expiresAt": "2026-12-31T23:00:00.000Z", "clickLimit": 8, "queryPolicy": "override"}
                | {"rules": [{"when": {"os": "ios"}, "destination": "https://example.org/ios"}]},
                42,
            )
        ],
    ),
    (
        "Dub, CSV of links",
        DUB,
        [
            (link("a.example", "/sale", "https://a.org/", tags=["x", "y"], **MADE), 42),
            (
                link("a.example", "/", "https://example.org/?a=1,2", tags=["=odd"], archived=True)
                | {"createdAt": "2026-01-01T00:00:00.000Z"},
                0,
            ),
        ],
    ),
    (
        "Dub, CSV of links before 21 October 2025",
        f"link,url,clicks,createdAt\nhttps://go.example.com/sale,https://example.org/,42,{AT}\n",
        [(link("go.example.com", "/sale", **MADE), 42)],
    ),
    (
        "Dub, REST API",
        json.dumps(DUB_JSON, indent=1),
        [
            (
                link("go.example.com", "/sale", title="A sale", tags=["x"], notes="a note", archived=True, **MADE)
                | {"expiresAt": NEW_YEAR, "fallbackUrl": "https://example.org/over", "hasPassword": True}
                | {"externalId": "crm-1", "isPublicStats": True}
                | {
                    "rules": [
                        {"when": {"os": "ios"}, "destination": "https://example.org/ios"},
                        {"when": {"country": "BR"}, "destination": "https://example.org/br"},
                    ]
                },
                42,
            )
        ],
    ),
    (
        "Kutt, API",
        json.dumps(KUTT),
        [
            (
                link("go.example.com", "/sale", "https://example.org/sale", title="A sale", disabled=True)
                | {"expiresAt": NEW_YEAR, "createdAt": "2026-02-03T09:10:11.155Z"},
                42,
            ),
            (link("kutt.example.net", "/aB3", hasPassword=True), 1234),
        ],
    ),
    (
        "Kutt, API",
        'address,target,domain,description,visit_count\nsale,https://example.org/,go.example.com,A,"1,234"\n',
        [(link("go.example.com", "/sale", title="A"), 1234)],
    ),
    (
        "YOURLS, CSV of a plugin",
        'source,target,hits\r\n/sale/,https://example.org/,42\r\n/b/,"https://example.org/?a=1,2",0\r\n',
        [(link("", "/sale"), 42), (link("", "/b", "https://example.org/?a=1,2"), 0)],
    ),
    (
        "YOURLS, table or API",
        "keyword\turl\ttitle\ttimestamp\tip\tclicks\n"
        "sale\thttps://example.org/\tA\t2026-02-03 09:10:11\t::1\t42\nb\thttps://example.org/\n",
        [(link("", "/sale", title="A", **MADE), 42), (link("", "/b"), 0)],
    ),
    (
        "YOURLS, table or API",
        json.dumps(YOURLS_JSON).replace("/", "\\/"),
        [
            (link("sho.example", "/sale", title="A sale", **MADE), 42),
            (link("sho.example", "/b", "https://example.org/b"), 0),
        ],
    ),
    (
        "YOURLS, table or API",
        json.dumps({"statusCode": 200, "result": [{"keyword": "sale", "url": "https://example.org/", "clicks": 4}]}),
        [(link("", "/sale"), 4)],
    ),
    (
        "Short.io, CSV or API",
        "originalURL,shortURL,path,domain,title,clicks,createdAt,tags,iosURL,expiresAt\n"
        f'https://example.org/,https://go.example.com/Sale,Sale,go.example.com,A,42,{AT},"x, y",'
        "https://example.org/ios,2027-01-01\n",
        [
            (
                link("go.example.com", "/Sale", title="A", tags=["x", "y"], expiresAt=NEW_YEAR, **MADE)
                | {"rules": [{"when": {"os": "ios"}, "destination": "https://example.org/ios"}]},
                42,
            )
        ],
    ),
    (
        "Short.io, CSV or API",
        json.dumps(SHORTIO_JSON),
        [
            (
                link("go.example.com", "/Sale", "https://example.org/sale", title="A sale", tags=["x"])
                | {"createdAt": "2026-02-03T09:10:11.897Z", "expiresAt": NEW_YEAR, "clickLimit": 9}
                | {"redirectStatus": 307, "utm": {"source": "mail"}, "queryPolicy": "append"}
                | {"rules": [{"when": {"os": "android"}, "destination": "https://example.org/android"}]},
                0,
            )
        ],
    ),
    (
        "Sink, JSON",
        json.dumps(SINK, indent=2),
        [
            (
                link("", "/sale", "https://example.org/sale", tags=["x"], notes="a note", hasPassword=True, **MADE)
                | {"expiresAt": NEW_YEAR, "queryPolicy": "override"}
                | {
                    "rules": [
                        {"when": {"os": "ios"}, "destination": "https://example.org/ios"},
                        {"when": {"country": "DE"}, "destination": "https://example.org/de"},
                    ]
                },
                0,
            )
        ],
    ),
    (
        "Bitly, CSV or API",
        "Bitlink,Title,Long URL,Tags,Total Clicks,Clicks\n"
        'https://bit.ly/3a,A,https://example.org/,"x, y","1,000",5\nbit.ly/b,,https://example.org/,,,\n',
        [(link("bit.ly", "/3a", title="A", tags=["x", "y"]), 1000), (link("bit.ly", "/b"), 0)],
    ),
    (
        "Bitly, CSV or API",
        "Link,Custom Link,Destination URL\n"
        "bit.ly/3a,go.example.com/sale,https://example.org/\nbit.ly/b,,https://example.org/\n",
        [(link("go.example.com", "/sale"), 0), (link("bit.ly", "/b"), 0)],
    ),
    (
        "Bitly, CSV or API",
        json.dumps(BITLY_JSON).replace("A sale", "A\tsale\n"),  # no JSON, but Bitly has been seen to answer so
        [
            (
                link(
                    "go.example.com",
                    path,
                    "https://example.org/sale",
                    title="A sale ",
                    tags=["x"],
                    archived=True,
                    **MADE,
                ),
                0,
            )
            for path in ("/sale", "/offer")
        ]
        + [(link("bit.ly", "/b", "https://example.org/b", tags=[]), 0)],
    ),
    (
        "Rebrandly, API or CSV made of it",
        "id,createdAt,shortUrl,domain,slashtag,destination\n"
        f"0a,{AT},go.example.com/sale,go.example.com,sale,https://example.org/\n",
        [(link("go.example.com", "/sale", **MADE), 0)],
    ),
    ("Linkwire", "Destination;Path\nhttps://example.org/;/sale\n", [(link("", "/sale"), 0)]),
    (
        "Linkwire",
        json.dumps(
            {
                "success": True,
                "data": [
                    {"hostname": "go.example.com", "path": "/sale", "shortUrl": "x"}
                    | {"destination": "https://example.org/", "title": None, "historicClicks": 4}
                ],
            }
        ),
        [(link("go.example.com", "/sale", title=None), 4)],
    ),
]

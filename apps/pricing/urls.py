from django.urls import path

from apps.pricing.api import books, prices

api_urlpatterns = [
    path("catalog", prices.Catalog.as_view(), name="catalog"),
    path("machine-types", prices.Catalog.as_view(), name="machine-types"),
    path("resources", prices.Catalog.as_view(), name="resources"),
    path("resources/prices", prices.PriceList.as_view(), name="resource-prices"),
    path("regions", prices.RegionList.as_view(), name="regions"),
    path("regions/<str:code>", prices.RegionDetail.as_view(), name="region"),
    path("pricing", prices.PriceList.as_view(), name="pricing"),
    path("pricing/estimate", prices.EstimateCreate.as_view(), name="pricing-estimate"),
    path("pricing/books", books.BookList.as_view(), name="pricing-books"),
    path("pricing/books/<uuid:book_id>", books.BookDetail.as_view(), name="pricing-book"),
    path("pricing/books/<uuid:book_id>/publish", books.BookPublish.as_view(), name="pricing-book-publish"),
    path(
        "pricing/books/<uuid:book_id>/versions/<int:number>",
        books.VersionDetail.as_view(),
        name="pricing-book-version",
    ),
]
